//! The contract between devices, gateway and hub: messages, topics, seals, money, tariffs
