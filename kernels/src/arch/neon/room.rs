//! Bytes on the stack, in few sizes: what a function reserves, it touches, page by page.

use core::mem::MaybeUninit;

/// Lines of a cache.
#[repr(align(64))]
struct Bytes<const COUNT: usize>([MaybeUninit<i8>; COUNT]);

/// The most room that there is.
const MOST: usize = 512 << 10;

/// Calls `body` with room for `need` bytes; false if there is not so much.
#[inline(always)]
pub(super) fn with_room(need: usize, body: impl FnOnce(*mut i8)) -> bool {
    const SMALL: usize = 32 << 10;
    const MIDDLE: usize = 128 << 10;
    if need <= SMALL {
        on_stack::<SMALL>(body);
    } else if need <= MIDDLE {
        on_stack::<MIDDLE>(body);
    } else if need <= MOST {
        on_stack::<MOST>(body);
    } else {
        return false;
    }
    true
}

#[inline(never)]
fn on_stack<const COUNT: usize>(body: impl FnOnce(*mut i8)) {
    body(MaybeUninit::<Bytes<COUNT>>::uninit().as_mut_ptr().cast());
}
