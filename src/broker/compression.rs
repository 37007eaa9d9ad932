//! Bodies on the wire: compressed where that makes them shorter, and the exact bytes back.
//!
//! Much of what a message costs is the bytes that the broker writes to its log, and a provider's JSON shrinks three- to
//! sevenfold. How a body is written is the AMQP property `content_encoding`; a message without one carries the signed
//! bytes as they are, as every message did once. `deploy/docs/performance.md` has what it gains.

use std::cell::RefCell;
use std::collections::TryReserveError;
use std::io::{self, BufRead as _, Write};

use super::encoded::MOST;
use bytes::Bytes;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

/// How bodies travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    None,
    /// In the LZ4 frame format: <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>.
    #[default]
    Lz4,
}

/// The `content_encoding` of an LZ4 frame.
pub(super) const LZ4: &str = "lz4";

/// A body shorter than this travels as it is: there is little to save.
const WORTH_IT: usize = 1024;

/// Bodies from this length on are compressed where they hold up nobody else.
const LONG: usize = 256 * 1024;

/// Bodies from this length on say in their frame how long they are. A frame that doesn't say it is one block of at most
/// this length: an encoder's frames all have the same header, and setting up another for each short body would cost more
/// than it is worth.
const TELLS_LENGTH: usize = 64 * 1024;

/// More than so many bytes can't come of one in a frame.
const MOST_RATIO: usize = 255;

/// The first bytes of an LZ4 frame.
const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// The flag of a frame that says how long its content is.
const HAS_CONTENT_SIZE: u8 = 0b1000;

/// A body as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Encoded {
    /// The `content_encoding`, if it is compressed.
    pub(super) encoding: Option<&'static str>,
    /// The bytes.
    pub(super) body: Bytes,
}

impl Compression {
    /// The body as it is to travel.
    pub(super) async fn encode(self, body: &Bytes) -> Encoded {
        let shorter = match (self, body.len()) {
            (Self::None, _) | (Self::Lz4, ..WORTH_IT) => None,
            (Self::Lz4, WORTH_IT..LONG) => compress(body),
            (Self::Lz4, LONG..=MOST) => {
                let body = body.clone();
                tokio::task::spawn_blocking(move || compress(&body)).await.unwrap_or_default()
            }
            (Self::Lz4, _) => None,
        };
        match shorter.filter(|shorter| shorter.len() < body.len()) {
            Some(shorter) => Encoded { encoding: Some(LZ4), body: shorter.into() },
            None => Encoded { encoding: None, body: body.clone() },
        }
    }
}

thread_local! {
    /// An encoder's tables are larger than most bodies, so each thread keeps one.
    static ENCODER: RefCell<FrameEncoder<Vec<u8>>> = RefCell::new(encoder());
}

fn encoder() -> FrameEncoder<Vec<u8>> {
    FrameEncoder::with_frame_info(frame(), Vec::new())
}

fn frame() -> FrameInfo {
    FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB)
}

fn compress(body: &[u8]) -> Option<Vec<u8>> {
    if body.len() > TELLS_LENGTH {
        let frame = frame().content_size(u64::try_from(body.len()).ok());
        let mut encoder = FrameEncoder::with_frame_info(frame, Vec::new());
        encoder.write_all(body).ok()?;
        return encoder.finish().ok();
    }
    ENCODER.with_borrow_mut(|encoder| {
        if encoder.write_all(body).is_err() || encoder.try_finish().is_err() {
            // Half a frame must not come before the next one.
            *encoder = self::encoder();
            return None;
        }
        Some(std::mem::take(encoder.get_mut()))
    })
}

/// The length that a frame says its content has, in bytes. Whoever wrote it may have lied.
pub(super) fn declared_len(frame: &[u8]) -> usize {
    let flags = frame.strip_prefix(&MAGIC).and_then(|rest| rest.first()).copied().unwrap_or_default();
    let size = frame.get(6..14).and_then(|size| <[u8; 8]>::try_from(size).ok());
    match size.filter(|_| flags & HAS_CONTENT_SIZE != 0) {
        Some(size) => usize::try_from(u64::from_le_bytes(size)).unwrap_or(usize::MAX),
        None => TELLS_LENGTH,
    }
}

/// Why a frame wasn't decompressed.
#[derive(Debug)]
pub(super) enum NotDecompressed {
    /// Its content is longer than the limit.
    TooLong,
    /// There is no memory for its content.
    OutOfMemory,
    /// It isn't a frame, or not a whole one.
    Malformed(String),
}

impl From<io::Error> for NotDecompressed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::OutOfMemory => Self::OutOfMemory,
            _ => Self::Malformed(error.to_string()),
        }
    }
}

impl From<TryReserveError> for NotDecompressed {
    fn from(_: TryReserveError) -> Self {
        Self::OutOfMemory
    }
}

/// The content of a frame, if it has at most `limit` bytes.
pub(super) fn decompress(frame: &[u8], limit: usize) -> Result<Bytes, NotDecompressed> {
    let declared = declared_len(frame);
    if declared > limit.max(TELLS_LENGTH) {
        return Err(NotDecompressed::TooLong);
    }
    let mut content = Vec::new();
    content.try_reserve_exact(declared.min(limit).min(frame.len().saturating_mul(MOST_RATIO)))?;
    let mut decoder = FrameDecoder::new(frame);
    loop {
        let part = decoder.fill_buf()?;
        let length = part.len();
        if length == 0 {
            break;
        }
        if length > limit - content.len() {
            return Err(NotDecompressed::TooLong);
        }
        content.try_reserve(length)?;
        content.extend_from_slice(part);
        decoder.consume(length);
    }
    content.shrink_to_fit();
    Ok(content.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(encoded: &Encoded) -> Bytes {
        match encoded.encoding {
            Some(_) => decompress(&encoded.body, MOST).unwrap(),
            None => encoded.body.clone(),
        }
    }

    fn travelled(body: &Bytes) -> (Encoded, Bytes) {
        let encoded = futures_util::FutureExt::now_or_never(Compression::Lz4.encode(body)).unwrap();
        let back = decoded(&encoded);
        (encoded, back)
    }

    #[test]
    fn a_body_that_repeats_itself_becomes_shorter_and_comes_back() {
        let body: Bytes = r#"{"id":1,"url":"https://api.example.test/things/1"},"#.repeat(200).into();
        let (encoded, back) = travelled(&body);
        assert_eq!(encoded.encoding, Some(LZ4));
        assert!(encoded.body.len() * 10 < body.len());
        assert_eq!(back, body);
    }

    #[test]
    fn what_would_not_become_shorter_travels_as_it_is() {
        let mut random = fastrand::Rng::with_seed(1);
        let noise: Bytes = (0..10_000).map(|_| random.u8(..)).collect::<Vec<_>>().into();
        for body in [noise, Bytes::from_static(b"{}"), "a".repeat(WORTH_IT - 1).into()] {
            let (encoded, back) = travelled(&body);
            assert_eq!(encoded, Encoded { encoding: None, body: body.clone() });
            assert_eq!(back, body);
        }
        let body = Bytes::from("a".repeat(WORTH_IT));
        assert_eq!(travelled(&body).0.encoding, Some(LZ4));
    }

    #[tokio::test]
    async fn a_long_body_comes_back_too() {
        let body: Bytes = (0..LONG as u32).flat_map(|n| (n / 3).to_le_bytes()).collect::<Vec<_>>().into();
        let encoded = Compression::Lz4.encode(&body).await;
        assert_eq!(encoded.encoding, Some(LZ4));
        assert_eq!(decoded(&encoded), body);
        assert_eq!(Compression::None.encode(&body).await, Encoded { encoding: None, body });
    }

    #[test]
    fn few_bytes_cannot_become_many() {
        let bomb = compress(&vec![0; 1024 * 1024]).unwrap();
        assert!(bomb.len() < 10_000);
        assert_eq!(decompress(&bomb, 1024 * 1024).unwrap().len(), 1024 * 1024);
        assert!(matches!(decompress(&bomb, 1024 * 1024 - 1), Err(NotDecompressed::TooLong)));
    }

    #[test]
    fn a_long_frame_says_how_long_it_is_and_a_lie_gains_nothing() {
        for length in [TELLS_LENGTH + 1, 1024 * 1024] {
            assert_eq!(declared_len(&compress(&vec![0; length]).unwrap()), length);
        }
        assert_eq!(declared_len(&compress(&vec![0; TELLS_LENGTH]).unwrap()), TELLS_LENGTH);
        assert_eq!(declared_len(b""), TELLS_LENGTH);

        // A header that says 5 bytes, before blocks of a megabyte: what doesn't fit the limit isn't decompressed.
        let mut lying = FrameEncoder::with_frame_info(frame().content_size(Some(5)), Vec::new());
        lying.write_all(&vec![0; 1024 * 1024]).unwrap();
        lying.flush().unwrap();
        let mut frame = lying.into_inner();
        frame.extend([0; 4]);
        assert_eq!(declared_len(&frame), 5);
        assert!(matches!(decompress(&frame, 1000), Err(NotDecompressed::TooLong)));
        assert!(matches!(decompress(&frame, MOST), Err(NotDecompressed::Malformed(_))));
    }

    #[test]
    fn what_is_no_frame_is_told() {
        let Err(NotDecompressed::Malformed(why)) = decompress(b"abc", MOST) else { panic!("decompressed") };
        assert!(!why.is_empty());
    }

    proptest! {
        #[test]
        fn any_body_comes_back_exactly(part in proptest::collection::vec(any::<u8>(), 0..600), times in 1_usize..20) {
            let body: Bytes = part.repeat(times).into();
            prop_assert_eq!(travelled(&body).1, body);
        }

        #[test]
        fn a_damaged_frame_is_an_error_or_other_bytes_and_never_a_panic(
            part in proptest::collection::vec(any::<u8>(), 1..200), at in any::<prop::sample::Index>(), bit in 0..8_u8,
        ) {
            let mut frame = compress(&part.repeat(20)).unwrap();
            let at = at.index(frame.len());
            frame[at] ^= 1 << bit;
            let _ = decompress(&frame, 1 << 20);
            let _ = decompress(&frame[..at], 1 << 20);
        }
    }
}
