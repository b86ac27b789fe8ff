//! A file on its way to a peer that has asked for it: how far it has come, and whether its peer takes it fast enough.

use std::sync::Arc;
use std::time::Duration;

use sol_engine::Instant;

use crate::websocket::File;

/// Bytes of a file that must leave, and of a large packet that must arrive, in the time that a small one has.
pub(crate) const STRIDE: usize = 256 << 10;

/// See the module. There is one for an answer without a file, too: it has to leave as well.
#[derive(Debug)]
pub(crate) struct Download {
    file: Option<Arc<File>>,
    /// Bytes of it that were handed out.
    taken: usize,
    /// How much of it had left when its time began last, and when that was.
    left: usize,
    since: Instant,
}

impl Download {
    pub(crate) const fn new(file: Option<Arc<File>>, now: Instant) -> Self {
        Self {
            file,
            taken: 0,
            left: 0,
            since: now,
        }
    }

    /// Appends its next `len` bytes, or as many as there are. `true`: these were the last.
    pub(crate) fn take(&mut self, len: usize, out: &mut Vec<u8>) -> bool {
        let body = self.file.as_ref().map_or(&[][..], |file| file.body());
        let rest = body.get(self.taken..).unwrap_or_default();
        let piece = rest.get(..len).unwrap_or(rest);
        out.extend_from_slice(piece);
        self.taken = self.taken.saturating_add(piece.len());
        piece.len() == rest.len()
    }

    /// Whether its peer may go on, of which `unsent` bytes wait that were handed out: it has `time` for each [`STRIDE`].
    pub(crate) fn keeps_pace(&mut self, now: Instant, unsent: usize, time: Duration) -> bool {
        let left = self.taken.saturating_sub(unsent);
        if left.saturating_sub(self.left) >= STRIDE {
            (self.left, self.since) = (left, now);
        }
        now.saturating_since(self.since) < time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::Files;

    fn download(len: usize) -> Download {
        let mut files = Files::default();
        files.insert(b"/f", "text/plain", (0..=255).cycle().take(len).collect());
        Download::new(files.file(b"/f"), Instant::default())
    }

    #[test]
    fn a_file_is_handed_out_in_pieces_and_each_byte_once() {
        // What is held for a connection is a piece, however large the file is.
        let mut download = download(1_000);
        let mut out = b"head".to_vec();
        assert!(!download.take(999, &mut out));
        assert!(download.take(999, &mut out));
        assert!(download.take(999, &mut out));
        let wanted: Vec<u8> = b"head".iter().copied().chain((0..=255).cycle().take(1_000)).collect();
        assert_eq!(out, wanted);
        assert!(Download::new(None, Instant::default()).take(1, &mut out));
    }

    #[test]
    fn a_peer_has_its_time_again_for_each_stride_that_has_left() {
        // A slow link gets a large file; who takes nothing is cut, and so is who takes a byte now and then.
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        let time = Duration::from_secs(30);
        let mut download = download(1 << 20);
        download.take(STRIDE + 10, &mut Vec::new());
        assert!(download.keeps_pace(at(29), 11, time));
        assert!(!download.keeps_pace(at(30), 11, time));
        assert!(download.keeps_pace(at(30), 10, time));
        assert!(download.keeps_pace(at(59), 0, time));
        assert!(!download.keeps_pace(at(60), 0, time));
    }
}
