//! The gateway daemon, holdfast
