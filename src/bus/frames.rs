//! Frames on their way out. What many readers get is encoded once; frames that were encoded together
//! lie side by side, so that a reader who gets them all has one piece to write instead of many.

use std::sync::Arc;

/// Bytes of frames that lie together, or one frame alone. A reader that is slow with one of them
/// keeps them all.
const TOGETHER: usize = 64 << 10;

/// One line, or several that lie side by side, with their newlines.
#[derive(Debug, Clone)]
pub(super) enum Frame {
    /// For one reader.
    Own(Vec<u8>),
    /// For many.
    Shared(SharedFrame),
}

/// A part of a buffer that many readers share.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedFrame {
    buffer: Arc<Vec<u8>>,
    start: usize,
    end: usize,
}

impl SharedFrame {
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }
}

impl From<Vec<u8>> for SharedFrame {
    fn from(line: Vec<u8>) -> Self {
        SharedFrame { start: 0, end: line.len(), buffer: Arc::new(line) }
    }
}

impl Frame {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Frame::Own(bytes) => bytes,
            Frame::Shared(frame) => frame.bytes(),
        }
    }

    /// Takes in the frame that lies next to this one. False where another does.
    pub(super) fn grow(&mut self, next: &SharedFrame) -> bool {
        match self {
            Frame::Shared(frame)
                if frame.end == next.start && Arc::ptr_eq(&frame.buffer, &next.buffer) =>
            {
                frame.end = next.end;
                true
            }
            Frame::Shared(_) | Frame::Own(_) => false,
        }
    }
}

/// Encodes frames side by side; `encode` appends the next one's line to a buffer.
pub(super) fn encode<T>(
    items: impl IntoIterator<Item = T>,
    mut encode: impl FnMut(&mut Vec<u8>, T),
) -> Vec<SharedFrame> {
    let mut frames = Vec::new();
    let (mut buffer, mut ends) = (Vec::new(), Vec::new());
    let mut seal = |buffer: &mut Vec<u8>, ends: &mut Vec<usize>| {
        let buffer = Arc::new(std::mem::take(buffer));
        let mut start = 0;
        for end in ends.drain(..) {
            frames.push(SharedFrame { buffer: Arc::clone(&buffer), start, end });
            start = end;
        }
    };
    for item in items {
        encode(&mut buffer, item);
        ends.push(buffer.len());
        if buffer.len() >= TOGETHER {
            seal(&mut buffer, &mut ends);
        }
    }
    seal(&mut buffer, &mut ends);
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one_piece_and_others_do_not() {
        let line = |out: &mut Vec<u8>, text: &str| out.extend_from_slice(text.as_bytes());
        let frames = encode(["a\n", "bb\n", "c\n"], line);
        let mut piece = Frame::Shared(frames[0].clone());
        assert!(!piece.grow(&frames[2]));
        assert!(piece.grow(&frames[1]) && piece.grow(&frames[2]));
        assert_eq!(piece.bytes(), b"a\nbb\nc\n");
        let other = encode(["d\n"], line);
        assert!(!piece.grow(&other[0]));
        assert!(!Frame::Own(b"x\n".to_vec()).grow(&frames[0]));
    }

    #[test]
    fn a_buffer_is_not_kept_for_more_than_a_few_frames() {
        let large = "x".repeat(TOGETHER / 2);
        let frames = encode([&large; 5], |out, text| out.extend_from_slice(text.as_bytes()));
        assert_eq!(frames.len(), 5);
        assert!(frames.iter().all(|f| f.bytes() == large.as_bytes()));
        assert!(frames.iter().all(|f| f.buffer.len() <= TOGETHER));
    }
}
