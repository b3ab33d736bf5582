//! The manifest: which blocks make up the store, up to which record the log is sealed into them, and
//! what else must survive a cut of the log.
