//! The body so far, in memory of its own size.
//!
//! A large body lies in a mapping of its own: what isn't written to isn't resident, and what is given up goes back to the
//! system at once. The allocator would keep it: after a few large bodies its free space is all resident, and a buffer
//! taken from there costs its whole capacity, whatever has arrived.

use bytes::{Bytes, BytesMut};
use memmap2::MmapMut;

use super::SMALL_BODY;

/// The body so far. One frame is kept as it came, since most bodies come in one.
#[derive(Debug)]
pub(super) enum Gathered {
    Nothing,
    One(Bytes),
    Small(BytesMut),
    Large(Mapped),
}

/// There is no room for a large body.
#[derive(Debug)]
pub(super) struct NoRoom;

impl Gathered {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::One(bytes) => bytes.len(),
            Self::Small(bytes) => bytes.len(),
            Self::Large(mapped) => mapped.len,
        }
    }

    /// Adds what has arrived, of a body that has at most `most` bytes.
    pub(super) fn add(&mut self, data: Bytes, most: usize) -> Result<(), NoRoom> {
        let len = self.len() + data.len();
        match self {
            Self::Nothing => *self = Self::One(data),
            Self::Small(bytes) if len <= SMALL_BODY => bytes.extend_from_slice(&data),
            Self::Large(mapped) => mapped.add(&data)?,
            Self::One(first) if len <= SMALL_BODY && most <= SMALL_BODY => {
                let mut bytes = BytesMut::with_capacity(most.max(len));
                bytes.extend_from_slice(first);
                bytes.extend_from_slice(&data);
                *self = Self::Small(bytes);
            }
            Self::One(_) | Self::Small(_) => {
                let mut mapped = Mapped::new(most.max(len))?;
                mapped.add(&std::mem::replace(self, Self::Nothing).into_bytes())?;
                mapped.add(&data)?;
                *self = Self::Large(mapped);
            }
        }
        Ok(())
    }

    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Self::Nothing => Bytes::new(),
            Self::One(bytes) => bytes,
            Self::Small(bytes) => bytes.freeze(),
            Self::Large(mapped) => Bytes::from_owner(mapped),
        }
    }
}

/// A mapping, and how much of it is written.
#[derive(Debug)]
pub(super) struct Mapped {
    map: MmapMut,
    len: usize,
}

impl Mapped {
    fn new(capacity: usize) -> Result<Self, NoRoom> {
        Ok(Self { map: MmapMut::map_anon(capacity).map_err(|_| NoRoom)?, len: 0 })
    }

    fn add(&mut self, data: &[u8]) -> Result<(), NoRoom> {
        let end = self.len + data.len();
        self.map.get_mut(self.len..end).ok_or(NoRoom)?.copy_from_slice(data);
        self.len = end;
        Ok(())
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self.map.get(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gathered(frames: &[Vec<u8>], most: usize) -> Gathered {
        let mut gathered = Gathered::Nothing;
        for frame in frames {
            gathered.add(Bytes::copy_from_slice(frame), most).unwrap();
        }
        gathered
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_came_in_pieces_is_whole(sizes in proptest::collection::vec(0_usize..150_000, 0..6), more in 0_usize..2) {
            let frames: Vec<Vec<u8>> =
                sizes.iter().zip(1_u8..).map(|(size, byte)| vec![byte; *size]).collect();
            let whole = frames.concat();
            // Whether the length was told, or all that is known is that it isn't more than a megabyte.
            let most = if more == 0 { whole.len() } else { 1024 * 1024 };
            let gathered = gathered(&frames, most);
            prop_assert_eq!(gathered.len(), whole.len());
            prop_assert_eq!(gathered.into_bytes(), whole);
        }
    }

    #[test]
    fn a_body_that_is_longer_than_it_may_be_is_refused() {
        let mut large = gathered(&[vec![1; SMALL_BODY], vec![2; 10]], SMALL_BODY + 10);
        assert!(large.add(Bytes::from_static(b"x"), SMALL_BODY + 10).is_err());
    }
}
