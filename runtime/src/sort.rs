//! A sort that is small: what the library brings takes 18 KiB of flash on a Cortex-M.

/// Sorts in place by heap (Williams 1964): O(n log n) whatever the order was. Equal items may change places.
pub(crate) fn sort<T>(items: &mut [T], less: impl Fn(&T, &T) -> bool) {
    for root in (0..items.len() / 2).rev() {
        sift(items, root, &less);
    }
    for end in (1..items.len()).rev() {
        items.swap(0, end);
        sift(items.get_mut(..end).unwrap_or_default(), 0, &less);
    }
}

/// Moves an item down until no child is larger.
fn sift<T>(items: &mut [T], mut root: usize, less: &impl Fn(&T, &T) -> bool) {
    loop {
        let left = 2 * root + 1;
        let child = match items.get(left..) {
            Some([one, other, ..]) if less(one, other) => left + 1,
            _ => left,
        };
        let (Some(parent), Some(largest)) = (items.get(root), items.get(child)) else { return };
        if !less(parent, largest) {
            return;
        }
        items.swap(root, child);
        root = child;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sorts_as_the_library_does() {
        // Knuth's linear congruence; few values, so that many are equal.
        let mut state = 20_261_127u64;
        for len in 0..200 {
            let mut items = [0u8; 200];
            for item in &mut items {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *item = (state >> 58) as u8;
            }
            let mut expected = items;
            super::sort(items.split_at_mut(len).0, |a, b| a < b);
            expected.split_at_mut(len).0.sort_unstable();
            assert_eq!(items, expected);
        }
    }
}
