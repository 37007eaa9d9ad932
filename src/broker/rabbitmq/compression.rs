//! Bodies on the wire: compressed where that makes them shorter, and the exact bytes back.
//!
//! Much of what a message costs is the bytes that the broker writes to its log, and a provider's JSON shrinks three- to
//! sevenfold. How a body is written is the AMQP property `content_encoding`; a message without one carries the signed
//! bytes as they are, as every message did once. `deploy/docs/performance.md` has what it gains.

use std::cell::RefCell;
use std::io::{self, Read, Write};

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

/// The longest body that is decompressed, in bytes, so that a few bytes of a stranger can't fill the memory. It is far
/// above what any provider sends (GitHub: 25 MiB); what is longer than that travels as it is.
const MOST: usize = 128 * 1024 * 1024;

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
    let frame = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
    FrameEncoder::with_frame_info(frame, Vec::new())
}

fn compress(body: &[u8]) -> Option<Vec<u8>> {
    ENCODER.with_borrow_mut(|encoder| {
        if encoder.write_all(body).is_err() || encoder.try_finish().is_err() {
            // Half a frame must not come before the next one.
            *encoder = self::encoder();
            return None;
        }
        Some(std::mem::take(encoder.get_mut()))
    })
}

/// The bytes that were signed.
///
/// # Errors
/// One clause that says what is wrong with the message, and the bytes as they came.
pub(super) fn decode(encoding: Option<&str>, body: Vec<u8>) -> Result<Bytes, (String, Bytes)> {
    match encoding {
        None => Ok(body.into()),
        Some(LZ4) => decompress(&body, MOST).map_err(|why| (why, body.into())),
        Some(_) => Err((format!("its content encoding isn't {LZ4}"), body.into())),
    }
}

fn decompress(frame: &[u8], most: usize) -> Result<Bytes, String> {
    let mut body = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let read: io::Result<usize> = FrameDecoder::new(frame).take(limit).read_to_end(&mut body);
    match read {
        Err(error) => Err(format!("its body isn't an LZ4 frame: {error}")),
        Ok(length) if length > most => Err(format!("its body has more than {most} bytes once decompressed")),
        Ok(_) => Ok(body.into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn travelled(body: &Bytes) -> (Encoded, Bytes) {
        let encoded = futures_util::FutureExt::now_or_never(Compression::Lz4.encode(body)).unwrap();
        let back = decode(encoded.encoding, encoded.body.to_vec()).unwrap();
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
        assert_eq!(decode(encoded.encoding, encoded.body.to_vec()).unwrap(), body);
        assert_eq!(Compression::None.encode(&body).await, Encoded { encoding: None, body });
    }

    #[test]
    fn few_bytes_cannot_become_many() {
        let bomb = compress(&vec![0; 1024 * 1024]).unwrap();
        assert!(bomb.len() < 10_000);
        assert_eq!(decompress(&bomb, 1024 * 1024).unwrap().len(), 1024 * 1024);
        let why = decompress(&bomb, 1024 * 1024 - 1).unwrap_err();
        assert_eq!(why, "its body has more than 1048575 bytes once decompressed");
    }

    #[test]
    fn other_encodings_are_refused_with_their_bytes() {
        let (why, body) = decode(Some("gzip"), b"abc".to_vec()).unwrap_err();
        assert_eq!((why.as_str(), &body[..]), ("its content encoding isn't lz4", &b"abc"[..]));
        let (why, body) = decode(Some(LZ4), b"abc".to_vec()).unwrap_err();
        assert!(why.starts_with("its body isn't an LZ4 frame: "), "{why}");
        assert_eq!(body, "abc");
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
