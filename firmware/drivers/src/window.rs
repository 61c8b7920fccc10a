//! Finds packets of one length in a stream of bytes. It looks through a window of that length and moves it byte by byte
//! until what it shows is a packet, so after a disturbance the next whole one is found wherever it begins.

/// The last bytes of a stream that may belong to a packet of `N` bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window<const N: usize> {
    bytes: heapless::Vec<u8, N>,
    dropped: u32,
}

impl<const N: usize> Window<N> {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: heapless::Vec::new(),
            dropped: 0,
        }
    }

    /// Takes the next byte in; the packet that it completes. `may_begin` says whether a packet can begin like this, and
    /// that no byte at all can.
    pub(crate) fn push<P>(
        &mut self,
        byte: u8,
        may_begin: impl Fn(&[u8]) -> bool,
        parse: impl FnOnce(&[u8; N]) -> Option<P>,
    ) -> Option<P> {
        // The window is never full here: a full one becomes a packet or loses its beginning.
        let _ = self.bytes.push(byte);
        if let Ok(bytes) = <&[u8; N]>::try_from(&self.bytes[..]) {
            if let Some(packet) = parse(bytes) {
                self.bytes.clear();
                return Some(packet);
            }
            self.drop_first();
        }
        while !may_begin(&self.bytes) {
            self.drop_first();
        }
        None
    }

    /// Forgets a packet that has begun.
    pub(crate) fn reset(&mut self) {
        self.dropped = self.dropped.saturating_add(self.bytes.len() as u32);
        self.bytes.clear();
    }

    /// Bytes that belonged to no packet.
    pub(crate) const fn dropped(&self) -> u32 {
        self.dropped
    }

    /// How many bytes may belong to a packet that is not complete.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    fn drop_first(&mut self) {
        if !self.bytes.is_empty() {
            self.bytes.remove(0);
        }
        self.dropped = self.dropped.saturating_add(1);
    }
}
