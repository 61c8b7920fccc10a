//! Tasks of this repository: test, vectors
fn main() {}
