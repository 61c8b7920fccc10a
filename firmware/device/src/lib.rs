//! State machines of charger, washer and dispenser: sans-I/O, no_std
