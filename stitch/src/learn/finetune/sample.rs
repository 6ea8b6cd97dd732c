//! Which images and configs a step sees.

use simulator::Draw;

use crate::images::normalised;
use crate::network::Stitched;
use crate::space::two_way::groups;

/// Images are shifted by up to so many pixels.
const SHIFT: usize = 4;
/// Groups of similar cost, if costs were spread evenly (SN-Netv2 has 13).
const GROUPS: u64 = 12;

/// Images as bytes, and how a byte becomes a number ([`normalised`]).
#[derive(Clone, Copy, Debug)]
pub struct Pixels<'a> {
    /// `[N, H, W, C]`.
    pub values: &'a [u8],
    /// Rows, columns, channels.
    pub shape: [usize; 3],
    /// Per channel.
    pub mean: &'a [f32],
    /// Per channel.
    pub std: &'a [f32],
}

impl Pixels<'_> {
    /// All images as numbers.
    #[must_use]
    pub fn normalised(&self) -> Vec<f32> {
        let channels = self.mean.iter().zip(self.std).cycle();
        self.values.iter().zip(channels).map(|(&value, (mean, std))| normalised(value, *mean, *std)).collect()
    }
}

/// A number below `end`.
fn below(random: &mut Draw, end: usize) -> usize {
    ((u128::from(random.next()) * end as u128) >> 64) as usize
}

/// `count` images, each drawn, mirrored or not, and shifted; what comes from outside is reflected at the border.
pub fn batch(pixels: &Pixels<'_>, count: usize, random: &mut Draw) -> Vec<f32> {
    let [height, width, channels] = pixels.shape;
    let size = height * width * channels;
    let mut images = Vec::with_capacity(count * size);
    for _ in 0..count {
        let image = &pixels.values[below(random, pixels.values.len() / size) * size..][..size];
        let mirrored = random.next() & 1 == 1;
        let shift = [0; 2].map(|_: usize| below(random, 2 * SHIFT + 1));
        for y in 0..height {
            let y = reflected(y + shift[0], height);
            for x in 0..width {
                let x = reflected(if mirrored { width - 1 - x } else { x } + shift[1], width);
                let pixel = &image[(y * width + x) * channels..][..channels];
                let numbers = pixel.iter().zip(pixels.mean.iter().zip(pixels.std));
                images.extend(numbers.map(|(&value, (mean, std))| normalised(value, *mean, *std)));
            }
        }
    }
    images
}

/// `index − SHIFT`, reflected into `0..side`.
fn reflected(index: usize, side: usize) -> usize {
    let last = side.saturating_sub(1);
    let inside = SHIFT.abs_diff(index);
    if inside > last { (2 * last).saturating_sub(inside) } else { inside }
}

/// Draws configs: first a group of similar cost, then one of it.
pub struct Sampler {
    groups: Vec<Vec<usize>>,
}

impl Sampler {
    /// Groups of some paths of a family.
    pub fn new(stitched: &Stitched, paths: &[usize]) -> Self {
        let macs = |segments: &[usize]| segments.iter().map(|&segment| stitched.segments[segment].macs).sum();
        let macs: Vec<u64> = paths.iter().map(|&path| macs(&stitched.paths[path].segments)).collect();
        let span = macs.iter().max().zip(macs.iter().min()).map_or(0, |(most, least)| most - least);
        let named = |group: Vec<usize>| group.into_iter().map(|number| paths[number]).collect();
        Self { groups: groups(&macs, span / GROUPS).into_iter().map(named).collect() }
    }

    /// All paths that are drawn.
    pub fn paths(&self) -> impl Iterator<Item = usize> + Clone + '_ {
        self.groups.iter().flatten().copied()
    }

    /// One path.
    pub fn draw(&self, random: &mut Draw) -> usize {
        let group = &self.groups[below(random, self.groups.len())];
        group[below(random, group.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reflects_at_both_borders() {
        let seen: Vec<usize> = (0..9 + 2 * SHIFT).map(|index| reflected(index, 9)).collect();
        assert_eq!(seen, [4, 3, 2, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 7, 6, 5, 4]);
        assert_eq!(reflected(0, 1), 0);
        assert_eq!(reflected(8, 2), 0);
    }

    #[test]
    fn batches_hold_shifted_and_mirrored_images() {
        let values: Vec<u8> = (0..6 * 5).collect();
        let pixels = Pixels { values: &values, shape: [6, 5, 1], mean: &[0.0], std: &[1.0 / 255.0] };
        let images = batch(&pixels, 64, &mut Draw::new(3));
        assert_eq!(images.len(), 64 * 30);
        let rows = |image: &[f32]| image.chunks(5).map(<[f32]>::to_vec).collect::<Vec<_>>();
        let mut drawn = images.chunks(30);
        // Within a row, neighbours differ by one wherever no border lies between them.
        assert!(drawn.all(|image| rows(image).iter().all(|row| row.windows(2).all(|w| (w[0] - w[1]).abs() < 1.01))));
        assert_eq!(images, batch(&pixels, 64, &mut Draw::new(3)));
        assert_ne!(images, batch(&pixels, 64, &mut Draw::new(4)));
    }
}
