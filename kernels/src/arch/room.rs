//! Room on the stack, in few sizes: what a function reserves, it touches, page by page.

use core::mem::MaybeUninit;

/// Bytes from a line of the cache on.
#[repr(align(64))]
struct Bytes<const COUNT: usize>([MaybeUninit<u8>; COUNT]);

/// Calls `body` with room for `need` values; false if they take more than `MOST` bytes.
#[inline(always)]
pub(super) fn with_room<T, const MOST: usize>(need: usize, body: impl FnOnce(*mut T)) -> bool {
    const { assert!(align_of::<T>() <= align_of::<Bytes<0>>()) };
    const SMALL: usize = 48 << 10;
    const MIDDLE: usize = 208 << 10;
    let bytes = need.saturating_mul(size_of::<T>());
    if bytes <= SMALL {
        on_stack::<T, SMALL>(body);
    } else if bytes <= MIDDLE {
        on_stack::<T, MIDDLE>(body);
    } else if bytes <= MOST {
        on_stack::<T, MOST>(body);
    } else {
        return false;
    }
    true
}

#[inline(never)]
fn on_stack<T, const COUNT: usize>(body: impl FnOnce(*mut T)) {
    body(MaybeUninit::<Bytes<COUNT>>::uninit().as_mut_ptr().cast());
}
