//! The server's files of outcomes and multixacts, read past its own caches: where in them what lies (clog.c,
//! multixact.c).

use crate::format::kept::Kind;
use std::ops::RangeInclusive;
use std::rc::Rc;

/// Transactions, multixacts and members of a segment: 32 pages of 8192 bytes (slru.c).
const XIDS: u32 = 32 * 8192 * 4;
const MULTIS: u32 = 32 * 8192 / 4;
const MEMBERS: u32 = 32 * GROUPS * 4;
/// Four members share their flags: 4 bytes of flags, then four numbers.
const GROUPS: u32 = 8192 / GROUP_BYTES;
const GROUP_BYTES: u32 = 20;
/// `TRANSACTION_STATUS_COMMITTED` (clog.h).
const COMMITTED: u8 = 1;
/// `MultiXactStatusNoKeyUpdate` (multixact.h): this one and those above update.
const UPDATES: u8 = 4;

/// Where segments are read from. All of one is returned; the last one may be shorter.
pub trait Segments {
    type Error;
    fn read(&mut self, kind: Kind, number: u32) -> Result<Rc<Vec<u8>>, Self::Error>;
}

/// Why it could not be told.
#[derive(Debug, PartialEq, Eq)]
pub enum SlruError<E> {
    Read(E),
    /// The segment ends before it, or what is there cannot be.
    Damaged,
}

impl<E> From<E> for SlruError<E> {
    fn from(error: E) -> Self {
        SlruError::Read(error)
    }
}

/// Whether a transaction that has ended did so by a commit. Of subtransactions too: their own mark is final then.
pub fn committed<S: Segments>(segments: &mut S, xid: u32) -> Result<bool, SlruError<S::Error>> {
    let segment = segments.read(Kind::Outcomes, xid / XIDS)?;
    let byte = segment.get((xid % XIDS / 4) as usize);
    let byte = byte.ok_or(SlruError::Damaged)?;
    Ok(byte >> (xid % 4 * 2) & 3 == COMMITTED)
}

fn word(bytes: &[u8], at: u32) -> Option<u32> {
    let bytes = bytes.get(at as usize..at as usize + 4)?;
    Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// Where the members of a multixact begin; `None`: nothing was written there.
pub fn first_member<S: Segments>(
    segments: &mut S,
    multi: u32,
) -> Result<Option<u32>, SlruError<S::Error>> {
    let segment = segments.read(Kind::Offsets, multi / MULTIS)?;
    let found = word(&segment, multi % MULTIS * 4).ok_or(SlruError::Damaged)?;
    Ok((found != 0).then_some(found))
}

/// The multixact that comes after (`FirstMultiXactId` is 1).
fn after(multi: u32) -> u32 {
    multi.wrapping_add(1).max(1)
}

/// The member of a multixact that updates; `None` if all only lock. `next_multi` is the one that came after the last
/// that was written, and `next_member` where its members would begin.
pub fn updater<S: Segments>(
    segments: &mut S,
    multi: u32,
    next_multi: u32,
    next_member: u32,
) -> Result<Option<u32>, SlruError<S::Error>> {
    /// No transaction has more subtransactions than that among those who lock one row.
    const MOST: u32 = 1 << 24;
    let begin = first_member(segments, multi)?.ok_or(SlruError::Damaged)?;
    let end = match after(multi) {
        next if next == next_multi => next_member,
        next => first_member(segments, next)?.ok_or(SlruError::Damaged)?,
    };
    let count = end.wrapping_sub(begin);
    if count > MOST {
        return Err(SlruError::Damaged);
    }
    for n in 0..count {
        let member = begin.wrapping_add(n);
        let segment = segments.read(Kind::Members, member / MEMBERS)?;
        let within = member % MEMBERS;
        let (page, group) = (within / (GROUPS * 4), within % (GROUPS * 4) / 4);
        let at = page * 8192 + group * GROUP_BYTES;
        let flags = word(&segment, at).ok_or(SlruError::Damaged)?;
        let xid = word(&segment, at + 4 + member % 4 * 4).ok_or(SlruError::Damaged)?;
        // Place zero is left out when the numbers begin again.
        if xid != 0 && (flags >> (member % 4 * 8)) as u8 >= UPDATES {
            return Ok(Some(xid));
        }
    }
    Ok(None)
}

/// The numbers of the segments from that of `first` to that of the last before `next`, for each kind.
pub fn numbers(kind: Kind, first: u32, next: u32) -> Vec<u32> {
    let (each, wrap): (u32, RangeInclusive<u32>) = match kind {
        Kind::Outcomes => (XIDS, 0..=u32::MAX / XIDS),
        Kind::Offsets => (MULTIS, 0..=u32::MAX / MULTIS),
        Kind::Members => (MEMBERS, 0..=u32::MAX / MEMBERS),
    };
    if first == next {
        return Vec::new();
    }
    let (mut number, last) = (first / each, next.wrapping_sub(1) / each);
    // All of them, where the last one lies before the first one in the same segment.
    let mut numbers = vec![number];
    if number == last && next.wrapping_sub(first) < each {
        return numbers;
    }
    loop {
        number = if number == *wrap.end() { 0 } else { number + 1 };
        if numbers.contains(&number) {
            return numbers;
        }
        numbers.push(number);
        if number == last {
            return numbers;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[derive(Default)]
    struct Disk(HashMap<(Kind, u32), Vec<u8>>);

    impl Segments for Disk {
        type Error = u32;
        fn read(&mut self, kind: Kind, number: u32) -> Result<Rc<Vec<u8>>, u32> {
            let found = self.0.get(&(kind, number)).cloned();
            found.map(Rc::new).ok_or(number)
        }
    }

    impl Disk {
        fn bytes(&mut self, kind: Kind, number: u32) -> &mut Vec<u8> {
            let whole = || vec![0; 32 * 8192];
            self.0.entry((kind, number)).or_insert_with(whole)
        }

        fn begin(&mut self, multi: u32, member: u32) {
            let at = (multi % 65536 * 4) as usize;
            let segment = self.bytes(Kind::Offsets, multi / 65536);
            segment[at..at + 4].copy_from_slice(&member.to_le_bytes());
        }

        /// As multixact.c puts it: pages of 409 groups.
        fn member(&mut self, member: u32, xid: u32, status: u8) {
            let (page, group) = (member / 1636, member % 1636 / 4);
            let segment = self.bytes(Kind::Members, page / 32);
            let at = (page % 32 * 8192 + group * 20) as usize;
            segment[at + (member % 4) as usize] = status;
            let at = at + 4 + (member % 4 * 4) as usize;
            segment[at..at + 4].copy_from_slice(&xid.to_le_bytes());
        }
    }

    #[test]
    fn outcomes() {
        let mut disk = Disk::default();
        disk.bytes(Kind::Outcomes, 2)[5] = 0b11_10_01_00;
        let first = 2 * XIDS + 20;
        let told: Vec<bool> = (first..first + 4)
            .map(|xid| committed(&mut disk, xid).expect("read"))
            .collect();
        assert_eq!(told, [false, true, false, false]);
        assert_eq!(committed(&mut disk, 7), Err(SlruError::Read(0)));
        disk.bytes(Kind::Outcomes, 2).truncate(8192);
        assert_eq!(committed(&mut disk, 3 * XIDS - 1), Err(SlruError::Damaged));
    }

    #[test]
    fn updaters_wherever_members_lie() {
        let mut disk = Disk::default();
        // Across a group, a page, a segment, and all of these.
        for (n, begin) in [3, 1634, 52350, 52352 * 3 - 2].into_iter().enumerate() {
            let multi = 65535 + 2 * n as u32;
            disk.begin(multi, begin);
            disk.begin(multi + 1, begin + 4);
            for at in 0..3 {
                disk.member(begin + at, 100 + at, at as u8);
            }
            disk.member(begin + 3, 777, 5);
            assert_eq!(updater(&mut disk, multi, 9, 9), Ok(Some(777)), "{begin}");
            disk.member(begin + 3, 777, 3);
            assert_eq!(updater(&mut disk, multi, 9, 9), Ok(None), "{begin}");
        }
    }

    #[test]
    fn the_last_one_ends_where_the_next_would_begin() {
        let mut disk = Disk::default();
        disk.begin(u32::MAX, u32::MAX - 1);
        disk.member(u32::MAX - 1, 50, 1);
        disk.member(u32::MAX, 51, 2);
        // Place zero is nobody's.
        disk.member(1, 52, 4);
        assert_eq!(updater(&mut disk, u32::MAX, 1, 2), Ok(Some(52)));
        assert_eq!(updater(&mut disk, u32::MAX, 1, 1), Ok(None));
        // Nothing that was never written is made out of it.
        assert_eq!(updater(&mut disk, u32::MAX, 7, 7), Err(SlruError::Read(0)));
        disk.begin(3, 9);
        assert_eq!(updater(&mut disk, 3, 7, 7), Err(SlruError::Damaged));
        assert_eq!(updater(&mut disk, 2, 7, 7), Err(SlruError::Damaged));
    }

    #[test]
    fn the_segments_between_two_numbers() {
        let xids = |first, next| numbers(Kind::Outcomes, first, next);
        assert_eq!(xids(5, 5), []);
        assert_eq!(xids(3, XIDS), [0]);
        assert_eq!(xids(3, XIDS + 1), [0, 1]);
        assert_eq!(xids(4_294_000_000, 9), [4095, 0]);
        assert_eq!(numbers(Kind::Members, 52351, 52353), [0, 1]);
        assert_eq!(numbers(Kind::Members, u32::MAX, 2), [82040, 0]);
        assert_eq!(numbers(Kind::Offsets, u32::MAX, 0), [65535]);
    }
}
