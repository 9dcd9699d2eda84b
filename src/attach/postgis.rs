//! PostGIS looks up the numbers of its types and its schema once in a session, and keeps the projections that
//! it has read from `spatial_ref_sys`. In another database both are others.
//!
//! Each is in a memory context of its own, below CacheMemoryContext, and a variable of the library points to it
//! (libpgcommon: `POSTGIS_CONSTANTS` in lwgeom_pg.c, `PROJ_CACHE` in lwgeom_transform.c; 3.0 to 3.5). When the
//! session moves, both variables are cleared, which is how they begin, and the contexts deleted. The other
//! libraries of PostGIS (raster, topology, SFCGAL) keep nothing of a database's between calls.
#![allow(unsafe_code)] // memory contexts, and another library's variables

use crate::attach::{libraries, refuse};
use pgrx::pg_sys::{self, MemoryContext, MemoryContextData};
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::CStr;
use std::ops::Range;

const CONSTANTS: &CStr = c"PostGIS Constants Context";
const PROJECTIONS: &CStr = c"Proj Context";
/// What the first block of a small context has: `ALLOCSET_SMALL_INITSIZE` (memutils.h).
const SMALL: usize = 1024;

/// The library's segments.
#[derive(Default)]
struct Library {
    readable: Vec<Range<usize>>,
    /// What can be written to still: not what is protected after the library was loaded.
    writable: Vec<Range<usize>>,
}

thread_local! {
    /// Whether the library is one that is known here: it does not change.
    static KNOWN: Cell<Option<bool>> = const { Cell::new(None) };
}

fn library() -> Option<Library> {
    let mut found = None;
    libraries::each_loaded(|name, info| {
        if libraries::is(name, "postgis") {
            found = Some(segments(info));
        }
    });
    found
}

fn segments(info: &libc::dl_phdr_info) -> Library {
    let mut library = Library::default();
    // SAFETY: the library's program headers, as the loader has them.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let range = |header: &libc::Elf64_Phdr| {
        let start = (info.dlpi_addr + header.p_vaddr) as usize;
        start..start + header.p_memsz as usize
    };
    let is = |header: &&libc::Elf64_Phdr, kind: u32| header.p_type == kind;
    let protected = headers
        .iter()
        .find(|it| is(it, libc::PT_GNU_RELRO))
        .map(range);
    for header in headers.iter().filter(|it| is(it, libc::PT_LOAD)) {
        let mut here = range(header);
        if header.p_flags & libc::PF_W == 0 {
            library.readable.push(here);
            continue;
        }
        if let Some(protected) = protected.as_ref().filter(|it| here.contains(&it.start)) {
            here.start = protected.end;
        }
        here.start = here.start.next_multiple_of(size_of::<usize>());
        library.writable.push(here);
    }
    library
}

impl Library {
    /// The one variable whose value is `is`, if it is one.
    unsafe fn variable(&self, is: impl Fn(usize) -> bool) -> Option<*mut usize> {
        let mut found = None;
        for range in &self.writable {
            for at in range.clone().step_by(size_of::<usize>()) {
                // SAFETY: a word of a segment that is mapped as long as the library is.
                if at + size_of::<usize>() <= range.end && is(unsafe { *(at as *const usize) }) {
                    if found.is_some() {
                        return None;
                    }
                    found = Some(at as *mut usize);
                }
            }
        }
        found
    }

    /// Whether the library has both names in it, as those versions do.
    fn is_known(&self) -> bool {
        let has = |name: &CStr| {
            let name = name.to_bytes_with_nul();
            self.readable.iter().any(|range| {
                // SAFETY: a segment that is mapped as long as the library is.
                let bytes =
                    unsafe { std::slice::from_raw_parts(range.start as *const u8, range.len()) };
                contains(bytes, name)
            })
        };
        has(CONSTANTS) && has(PROJECTIONS)
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    // SAFETY: two slices and their lengths.
    let found = unsafe {
        libc::memmem(
            bytes.as_ptr().cast(),
            bytes.len(),
            wanted.as_ptr().cast(),
            wanted.len(),
        )
    };
    !found.is_null()
}

/// The memory contexts of that name below CacheMemoryContext.
fn contexts(name: &CStr) -> Vec<MemoryContext> {
    let mut found = Vec::new();
    // SAFETY: this process's contexts; a name is a constant of who made it.
    unsafe {
        let cache = pg_sys::CacheMemoryContext;
        let mut at = if cache.is_null() {
            std::ptr::null_mut()
        } else {
            (*cache).firstchild
        };
        while !at.is_null() {
            if !(*at).name.is_null() && CStr::from_ptr((*at).name) == name {
                found.push(at);
            }
            at = (*at).nextchild;
        }
    }
    found
}

/// A variable that points into a context.
type Kept = (*mut usize, MemoryContext);

/// What the library has kept, each with its variable. `Err`: it is not as it is known here.
fn kept() -> Result<Vec<Kept>, ()> {
    let Some(library) = library() else {
        return Ok(Vec::new());
    };
    let known = KNOWN.get().unwrap_or_else(|| library.is_known());
    KNOWN.set(Some(known));
    if !known {
        return Err(());
    }
    let mut kept = Vec::new();
    for name in [CONSTANTS, PROJECTIONS] {
        let context = match contexts(name)[..] {
            [] => continue,
            [context] => context,
            _ => return Err(()),
        };
        // SAFETY: a live context of this process.
        let variable = unsafe {
            match name == CONSTANTS {
                true => library.variable(|value| is_chunk(value, context)),
                false => {
                    let kept = with_callback(context).ok_or(())?;
                    library.variable(|value| value == kept)
                }
            }
        };
        kept.push((variable.ok_or(())?, context));
    }
    Ok(kept)
}

/// Whether the value is what palloc returned in the first block of a context, which lies with the context:
/// before it stands the context (aset.c, `AllocChunkData`).
unsafe fn is_chunk(value: usize, context: MemoryContext) -> bool {
    let word = size_of::<usize>();
    let block = context as usize..context as usize + SMALL;
    let first = block.start + size_of::<MemoryContextData>() + word;
    // SAFETY: within the block, which is mapped.
    value.is_multiple_of(word)
        && (first..block.end).contains(&value)
        && unsafe { *((value - word) as *const usize) } == context as usize
}

/// The argument of the only callback that a context has: that frees what is not palloc'd.
unsafe fn with_callback(context: MemoryContext) -> Option<usize> {
    // SAFETY: a live context, whose callbacks are linked.
    unsafe {
        let callback = (*context).reset_cbs;
        let one = !callback.is_null() && (*callback).next.is_null();
        one.then(|| (*callback).arg as usize)
    }
}

/// Raises 0A000 if there is something, but not as it is known here.
pub fn check() {
    if kept().is_err() {
        refuse(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "cannot leave the database: what PostGIS keeps of it is not where it should be",
            "Connect to the fork by its name, in a session of its own.",
        );
    }
}

/// Makes PostGIS look all up again. Part of the switch.
pub fn forget() {
    for (variable, context) in kept().unwrap_or_default() {
        // SAFETY: first the variable, because nothing may find what is freed then. The two strings that the
        // constants point to are in CacheMemoryContext, and stay there: some 40 bytes.
        unsafe {
            variable.write(0);
            pg_sys::MemoryContextDelete(context);
        }
    }
}
