//! Where names go, so that none covers a point or another name.

/// A rectangle: left, top, right, bottom.
pub(super) type Rect = [i32; 4];

/// Width of a text, a little generous: the page chooses the font.
pub(super) fn width(text: &str, size: u32) -> i32 {
    (text.chars().count() as f64 * f64::from(size) * 0.57).ceil() as i32
}

/// Pixels that two rectangles share.
fn shared(a: &Rect, b: &Rect) -> i64 {
    let side = |low: usize, high: usize| i64::from((a[high].min(b[high]) - a[low].max(b[low])).max(0));
    side(0, 2) * side(1, 3)
}

/// Rectangles that are taken, and the space there is.
pub(super) struct Places {
    taken: Vec<Rect>,
    bounds: Rect,
}

impl Places {
    pub(super) fn new(bounds: Rect) -> Self {
        Self { taken: vec![], bounds }
    }

    /// Keeps names away from a point.
    pub(super) fn keep(&mut self, (x, y): (i32, i32), size: i32) {
        self.taken.push([x - size, y - size, x + size, y + size]);
    }

    /// Keeps names away from a path of horizontal and vertical lines.
    pub(super) fn keep_path(&mut self, path: &[(i32, i32)]) {
        for ends in path.windows(2) {
            if let [(x, y), (x2, y2)] = *ends {
                self.taken.push([x.min(x2) - 2, y.min(y2) - 2, x.max(x2) + 2, y.max(y2) + 2]);
            }
        }
    }

    /// The place for a text near a point that covers nothing; with `must`, the one that covers least.
    pub(super) fn place(&mut self, text: &str, size: u32, (x, y): (i32, i32), must: bool) -> Option<Rect> {
        let (width, height) = (width(text, size), size as i32 + 4);
        let candidates = [12, 20, 32].into_iter().flat_map(|gap| {
            let (middle_x, middle_y) = (x - width / 2, y - height / 2);
            let (near_x, near_y) = (gap * 2 / 3, gap * 2 / 3);
            [
                (x + near_x, y + near_y),
                (x - width - near_x, y - height - near_y),
                (middle_x, y - height - gap),
                (x + gap, middle_y),
                (middle_x, y + gap),
                (x - width - gap, middle_y),
                (x + near_x, y - height - near_y),
                (x - width - near_x, y + near_y),
            ]
        });
        let rects = candidates.map(|(left, top)| [left, top, left + width, top + height]);
        let (cost, rect) = rects.map(|rect| (self.cost(&rect), rect)).min_by_key(|&(cost, _)| cost)?;
        (cost == 0 || must).then(|| {
            self.taken.push(rect);
            rect
        })
    }

    fn cost(&self, rect: &Rect) -> i64 {
        let inside = shared(rect, &self.bounds);
        let area = i64::from(rect[2] - rect[0]) * i64::from(rect[3] - rect[1]);
        10 * (area - inside) + self.taken.iter().map(|taken| shared(rect, taken)).sum::<i64>()
    }
}

/// Heights for names in a column: near `levels` (falling from top to bottom), at least `gap` apart, not below
/// `bottom`.
pub(super) fn spread(levels: &[i32], gap: i32, bottom: i32) -> Vec<i32> {
    let mut heights = levels.to_vec();
    for index in 1..heights.len() {
        heights[index] = heights[index].max(heights[index - 1] + gap);
    }
    let mut limit = bottom;
    for height in heights.iter_mut().rev() {
        *height = (*height).min(limit);
        limit = *height - gap;
    }
    heights
}

#[cfg(test)]
mod tests {
    use super::{Places, shared, spread};

    #[test]
    fn names_in_a_column_stand_apart() {
        assert_eq!(spread(&[10, 12, 60, 98], 15, 100), [10, 25, 60, 98]);
        assert_eq!(spread(&[90, 95, 98], 15, 100), [70, 85, 100]);
    }

    #[test]
    fn names_of_neighbours_do_not_overlap() {
        let mut places = Places::new([0, 0, 400, 300]);
        let points = [(200, 150), (206, 152), (212, 148), (394, 4)];
        for point in points {
            places.keep(point, 7);
        }
        let rects: Vec<_> = points.map(|point| places.place("large.3", 13, point, true).unwrap()).into();
        for (index, a) in rects.iter().enumerate() {
            assert!(rects[..index].iter().all(|b| shared(a, b) == 0), "{rects:?}");
            assert!(a[0] >= 0 && a[1] >= 0 && a[2] <= 400 && a[3] <= 300, "{a:?} leaves the picture");
        }
    }

    #[test]
    fn leaves_out_a_name_that_has_no_place() {
        let mut places = Places::new([0, 0, 60, 20]);
        places.keep((30, 10), 7);
        assert_eq!(places.place("a long name", 13, (30, 10), false), None);
    }
}
