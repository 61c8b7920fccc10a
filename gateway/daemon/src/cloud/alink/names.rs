//! The cloud's topics for this gateway, and the numbers of our requests.

/// The gateway's names.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) product_key: String,
    pub(super) device_name: String,
}

impl Names {
    /// `/sys/{product}/{device}/{rest}`.
    pub(super) fn sys(&self, rest: &str) -> String {
        format!("/sys/{}/{}/{rest}", self.product_key, self.device_name)
    }

    /// `/{before}/{product}/{device}{after}`.
    pub(super) fn around(&self, before: &str, after: &str) -> String {
        format!("/{before}/{}/{}{after}", self.product_key, self.device_name)
    }

    /// A topic of the operator's own making.
    pub(super) fn user(&self, rest: &str) -> String {
        format!("/{}/{}/user/{rest}", self.product_key, self.device_name)
    }
}

/// Numbers of requests. They go on over connections, so that a late reply never fits a newer question.
#[derive(Debug)]
pub(super) struct Ids(u32);

impl Ids {
    pub(super) const fn after(last: u32) -> Self {
        Self(last)
    }

    pub(super) const fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(1);
        self.0
    }
}
