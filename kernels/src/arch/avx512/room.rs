//! Room for values of 16 bits on the stack, in few sizes: what a function reserves, it touches, page by page.

use core::mem::MaybeUninit;

/// Vectors begin at lines of the cache.
#[repr(align(64))]
struct Values<const COUNT: usize>([i16; COUNT]);

/// The most room that there is: 832 KiB.
pub(super) const MOST: usize = 416 << 10;

/// Calls `body` with room for `need` values; false if that is more than [`MOST`].
#[inline(always)]
pub(super) fn with_room(need: usize, body: impl FnOnce(*mut i16)) -> bool {
    const SMALL: usize = 24 << 10;
    const MIDDLE: usize = 104 << 10;
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
fn on_stack<const COUNT: usize>(body: impl FnOnce(*mut i16)) {
    body(MaybeUninit::<Values<COUNT>>::uninit().as_mut_ptr().cast());
}
