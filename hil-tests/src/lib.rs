//! The bench: twins, demo, scenarios, cloud faults
