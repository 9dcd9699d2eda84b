//! Whether a page is what was written, and saying so, where it is asked for each page that is read.

use pg_fork_core::checksum;
use pg_fork_core::types::{Block, Page};
use pgrx::pg_sys;

/// Whether the page has the right checksum, if the cluster has them.
pub fn is_right(page: &Page, block: Block) -> bool {
    !are_used() || checksum::stored(page) == of(page, block)
}

/// Gives the page the right one; a page that was never used has none (bufpage.c, `PageSetChecksumInplace`).
pub fn set(page: &mut Page, block: Block) {
    let is_new = page[14..16] == [0, 0]; // pd_upper
    if are_used() && !is_new {
        checksum::store(page, of(page, block));
    }
}

fn are_used() -> bool {
    // SAFETY: reads the control file's copy in memory.
    unsafe { pg_sys::DataChecksumsEnabled() }
}

fn of(page: &Page, block: Block) -> u16 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { of_avx2(page, block) };
    }
    checksum::of(page, block)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn of_avx2(page: &Page, block: Block) -> u16 {
    checksum::of(page, block)
}
