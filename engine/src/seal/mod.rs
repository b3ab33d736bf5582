//! Sealing: a frozen generation becomes blocks.

mod windows;

pub(crate) use windows::Windows;
