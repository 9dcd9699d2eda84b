//! The transactions in flight at a cut, in xid order.

/// The first xid that belongs to a transaction (`FirstNormalTransactionId`).
const FIRST_NORMAL_XID: u32 = 3;

/// A set of xids, ordered from the oldest. Xids wrap around, so the order is the
/// signed distance from the cut's next xid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight {
    xids: Vec<u32>,
    next_xid: u32,
    /// The age of the oldest, or `i32::MAX` when there is none.
    oldest_age: i32,
}

impl InFlight {
    /// `next_xid` is the first xid not yet assigned at the cut. Duplicates and
    /// xids of no transaction (below 3) are dropped.
    pub fn new(mut xids: Vec<u32>, next_xid: u32) -> Self {
        xids.retain(|&xid| xid >= FIRST_NORMAL_XID);
        xids.sort_unstable_by_key(|&xid| age(xid, next_xid));
        xids.dedup();
        let oldest_age = xids.first().map_or(i32::MAX, |&xid| age(xid, next_xid));
        Self {
            xids,
            next_xid,
            oldest_age,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.xids.is_empty()
    }

    pub fn contains(&self, xid: u32) -> bool {
        let wanted = age(xid, self.next_xid);
        self.xids
            .binary_search_by_key(&wanted, |&x| age(x, self.next_xid))
            .is_ok()
    }

    /// One comparison that is true of nearly every xid on a page.
    pub(super) fn precedes_all(&self, xid: u32) -> bool {
        age(xid, self.next_xid) < self.oldest_age
    }

    pub fn oldest(&self) -> Option<u32> {
        self.xids.first().copied()
    }

    /// Oldest first, each once.
    pub fn xids(&self) -> &[u32] {
        &self.xids
    }
}

/// How far `xid` is from `next_xid`: negative for assigned xids, the older the
/// lower. One to one, so it can stand for the xid.
fn age(xid: u32, next_xid: u32) -> i32 {
    xid.wrapping_sub(next_xid) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordered_from_the_oldest_across_the_wraparound() {
        let set = InFlight::new(vec![5, u32::MAX, 4_000_000_000, 5, 0, 1, 2], 10);
        assert_eq!(set.xids(), [4_000_000_000, u32::MAX, 5]);
        assert_eq!(set.oldest(), Some(4_000_000_000));
        assert!(set.contains(5) && set.contains(u32::MAX));
        assert!(set.precedes_all(3_999_999_999) && !set.precedes_all(4_000_000_000));
    }

    #[test]
    fn permanent_xids_are_never_in_flight() {
        let set = InFlight::new(vec![0, 1, 2, 3], 10);
        assert_eq!(set.xids(), [3]);
        assert!((0..3).all(|xid| !set.contains(xid)));
    }

    #[test]
    fn empty_set() {
        let set = InFlight::new(vec![2], 10);
        assert!(set.is_empty() && set.oldest().is_none() && !set.contains(9));
        assert!(set.precedes_all(9));
    }

    #[test]
    fn an_xid_not_yet_assigned_hides_no_other() {
        let set = InFlight::new(vec![50, 9], 10);
        assert_eq!(set.xids(), [9, 50]);
        assert!(set.contains(9) && set.contains(50) && !set.precedes_all(9));
    }
}
