//! The shop: its services, what calls what, and how long each step takes when all is well.
//!
//! The fault lies in one place: statements on `stock-db` are slow. Everything else that can be seen
//! (slow checkouts, errors in `checkout` and `frontend`, a full connection pool) follows from it.

/// What a request does inside a service: answered by `service`, whose own work takes `own_ms`.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) service: &'static str,
    /// The operation, as its spans are named.
    pub(super) name: &'static str,
    pub(super) own_ms: f64,
    pub(super) calls: &'static [Call],
}

/// One call a service makes; calls are made one after the other.
#[derive(Debug)]
pub(super) enum Call {
    /// To another service, given up after `timeout_ms`.
    Service {
        work: &'static Work,
        timeout_ms: f64,
    },
    /// To a database or cache that reports no spans of its own.
    Database(&'static Statement),
}

/// A statement on a database.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) database: &'static str,
    pub(super) system: &'static str,
    pub(super) collection: &'static str,
    pub(super) text: &'static str,
    pub(super) own_ms: f64,
}

/// A page of the shop and how often people ask for it.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) work: &'static Work,
    pub(super) method: &'static str,
    pub(super) route: &'static str,
    /// Out of the sum over all pages.
    pub(super) weight: u64,
}

/// The database with the fault.
pub(super) const SLOW_DATABASE: &str = "stock-db";
/// The service behind which it is.
pub(super) const SLOW_SERVICE: &str = "inventory";
/// How much slower its statements get.
pub(super) const SLOWDOWN: f64 = 90.0;

/// Services that report spans and metrics.
pub(super) const SERVICES: [&str; 8] = [
    "frontend",
    "catalog",
    "recommendations",
    "cart",
    "checkout",
    "inventory",
    "payment",
    "shipping",
];

/// Databases that report metrics only.
pub(super) const DATABASES: [&str; 3] = ["catalog-db", "cart-cache", SLOW_DATABASE];

/// What the shop offers.
pub(super) static PAGES: [Page; 4] = [
    Page {
        work: &HOME,
        method: "GET",
        route: "/",
        weight: 40,
    },
    Page {
        work: &PRODUCT,
        method: "GET",
        route: "/product/{id}",
        weight: 35,
    },
    Page {
        work: &ADD_TO_CART,
        method: "POST",
        route: "/cart",
        weight: 13,
    },
    Page {
        work: &CHECKOUT,
        method: "POST",
        route: "/checkout",
        weight: 12,
    },
];

const PATIENT_MS: f64 = 5_000.0;

static HOME: Work = Work {
    service: "frontend",
    name: "GET /",
    own_ms: 3.0,
    calls: &[
        Call::Service {
            work: &LIST_PRODUCTS,
            timeout_ms: PATIENT_MS,
        },
        Call::Service {
            work: &RECOMMEND,
            timeout_ms: PATIENT_MS,
        },
    ],
};
static PRODUCT: Work = Work {
    service: "frontend",
    name: "GET /product/{id}",
    own_ms: 3.5,
    calls: &[
        Call::Service {
            work: &GET_PRODUCT,
            timeout_ms: PATIENT_MS,
        },
        Call::Service {
            work: &RECOMMEND,
            timeout_ms: PATIENT_MS,
        },
    ],
};
static ADD_TO_CART: Work = Work {
    service: "frontend",
    name: "POST /cart",
    own_ms: 2.5,
    calls: &[
        Call::Service {
            work: &GET_PRODUCT,
            timeout_ms: PATIENT_MS,
        },
        Call::Service {
            work: &ADD_ITEM,
            timeout_ms: PATIENT_MS,
        },
    ],
};
static CHECKOUT: Work = Work {
    service: "frontend",
    name: "POST /checkout",
    own_ms: 4.0,
    calls: &[Call::Service {
        work: &PLACE_ORDER,
        timeout_ms: PATIENT_MS,
    }],
};
static PLACE_ORDER: Work = Work {
    service: "checkout",
    name: "Checkout/PlaceOrder",
    own_ms: 5.0,
    calls: &[
        Call::Service {
            work: &GET_CART,
            timeout_ms: PATIENT_MS,
        },
        Call::Service {
            work: &RESERVE,
            timeout_ms: 800.0,
        },
        Call::Service {
            work: &QUOTE,
            timeout_ms: PATIENT_MS,
        },
        Call::Service {
            work: &CHARGE,
            timeout_ms: PATIENT_MS,
        },
    ],
};
static LIST_PRODUCTS: Work = Work {
    service: "catalog",
    name: "Catalog/ListProducts",
    own_ms: 1.5,
    calls: &[Call::Database(&SELECT_PRODUCTS)],
};
static GET_PRODUCT: Work = Work {
    service: "catalog",
    name: "Catalog/GetProduct",
    own_ms: 0.8,
    calls: &[Call::Database(&SELECT_PRODUCT)],
};
static RECOMMEND: Work = Work {
    service: "recommendations",
    name: "Recommendations/List",
    own_ms: 6.0,
    calls: &[Call::Service {
        work: &LIST_PRODUCTS,
        timeout_ms: PATIENT_MS,
    }],
};
static ADD_ITEM: Work = Work {
    service: "cart",
    name: "Cart/AddItem",
    own_ms: 0.7,
    calls: &[Call::Database(&HSET_CART)],
};
static GET_CART: Work = Work {
    service: "cart",
    name: "Cart/GetCart",
    own_ms: 0.5,
    calls: &[Call::Database(&HGETALL_CART)],
};
static RESERVE: Work = Work {
    service: SLOW_SERVICE,
    name: "Inventory/Reserve",
    own_ms: 1.2,
    calls: &[Call::Database(&SELECT_STOCK), Call::Database(&UPDATE_STOCK)],
};
static QUOTE: Work = Work {
    service: "shipping",
    name: "Shipping/Quote",
    own_ms: 2.2,
    calls: &[],
};
static CHARGE: Work = Work {
    service: "payment",
    name: "Payment/Charge",
    own_ms: 18.0,
    calls: &[],
};

static SELECT_PRODUCTS: Statement = Statement {
    database: "catalog-db",
    system: "postgresql",
    collection: "products",
    text: "SELECT id, name, price FROM products ORDER BY rank LIMIT $1",
    own_ms: 4.0,
};
static SELECT_PRODUCT: Statement = Statement {
    database: "catalog-db",
    system: "postgresql",
    collection: "products",
    text: "SELECT * FROM products WHERE id = $1",
    own_ms: 1.5,
};
static HSET_CART: Statement = Statement {
    database: "cart-cache",
    system: "redis",
    collection: "carts",
    text: "HSET cart:? ? ?",
    own_ms: 0.3,
};
static HGETALL_CART: Statement = Statement {
    database: "cart-cache",
    system: "redis",
    collection: "carts",
    text: "HGETALL cart:?",
    own_ms: 0.3,
};
static SELECT_STOCK: Statement = Statement {
    database: SLOW_DATABASE,
    system: "postgresql",
    collection: "stock",
    text: "SELECT available FROM stock WHERE product_id = $1 FOR UPDATE",
    own_ms: 3.0,
};
static UPDATE_STOCK: Statement = Statement {
    database: SLOW_DATABASE,
    system: "postgresql",
    collection: "stock",
    text: "UPDATE stock SET available = available - $2 WHERE product_id = $1",
    own_ms: 5.0,
};

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(work: &Work, depth: usize) {
        assert!(depth < 8, "{} calls itself", work.name);
        assert!(SERVICES.contains(&work.service), "{}", work.service);
        for call in work.calls {
            match call {
                Call::Service { work, .. } => visit(work, depth + 1),
                Call::Database(statement) => assert!(DATABASES.contains(&statement.database)),
            }
        }
    }

    #[test]
    fn every_call_ends_in_a_known_service_or_database() {
        for page in &PAGES {
            visit(page.work, 0);
        }
    }
}
