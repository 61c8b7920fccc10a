//! Pure decisions of the gateway: authorize, session, ledger, outbox
