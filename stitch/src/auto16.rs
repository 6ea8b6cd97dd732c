//! `compile --auto16`: which tensors are worth 16 bits.
//!
//! Ordered by the noise that each adds by itself, so many of the noisiest as meet the loss that is asked for; then each
//! that can be spared again is left out. The smallest set of all would need every subset tried; this one has no member
//! that can be left out alone.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::layers::Layer;

/// Tensors from the one that adds most noise, over all configs, to the one that adds least.
#[must_use]
pub fn noisiest_first(candidates: Vec<String>, layers: &[Layer]) -> Vec<String> {
    let power = |ratio: f64| 10f64.powf(-ratio / 10.0);
    let mut added: BTreeMap<&str, f64> = BTreeMap::new();
    for layer in layers {
        let own = power(layer.ratio) - layer.source.map_or(0.0, power);
        let most = added.entry(&layer.name).or_default();
        *most = most.max(own);
    }
    let mut candidates: Vec<(f64, String)> =
        candidates.into_iter().map(|name| (added.get(&name[..]).copied().unwrap_or(0.0), name)).collect();
    candidates.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    candidates.into_iter().map(|(_, name)| name).collect()
}

/// A set of tensors with which `loss`, in points, is at most `most`. `fixed` are 16 bits in any case.
///
/// # Errors
/// What `loss` refuses; [`Error::Family`] if all candidates together do not do.
pub fn choose(
    fixed: &[String],
    candidates: &[String],
    most: f64,
    mut loss: impl FnMut(&[String]) -> Result<f64, Error>,
) -> Result<Vec<String>, Error> {
    let with = |some: &[String]| [fixed, some].concat();
    if loss(fixed)? <= most {
        return Ok(fixed.to_vec());
    }
    let best = loss(&with(candidates))?;
    if best > most {
        return Err(Error::Family(format!(
            "--auto16 {most}: with all of {} more tensors in 16 bits a config still loses {best:.2} points; what is left \
             comes from weights and inputs of 8 bits",
            candidates.len()
        )));
    }
    // Not enough and enough.
    let (mut few, mut many) = (0, candidates.len());
    while few + 1 < many {
        let middle = usize::midpoint(few, many);
        *(if loss(&with(&candidates[..middle]))? <= most { &mut many } else { &mut few }) = middle;
    }
    let mut chosen = candidates[..many].to_vec();
    // The last one was seen to be needed.
    for number in (0..many.saturating_sub(1)).rev() {
        let mut fewer = chosen.clone();
        fewer.remove(number);
        if loss(&with(&fewer))? <= most {
            chosen = fewer;
        }
    }
    Ok(with(&chosen))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    /// Each tensor takes its number of points off a loss of 10.
    fn loss(some: &[String]) -> Result<f64, Error> {
        Ok(10.0 - some.iter().map(|name| name.parse::<f64>().expect("a number")).sum::<f64>())
    }

    #[test]
    fn no_tensor_that_is_chosen_can_be_left_out() {
        let all = names(&["1", "4", "0", "3", "2"]);
        assert_eq!(choose(&[], &all, 3.0, loss).expect("a set"), names(&["4", "3"]));
        assert_eq!(choose(&names(&["2"]), &all, 8.5, loss).expect("what is there"), names(&["2"]));
        assert_eq!(choose(&[], &all, 10.0, loss).expect("nothing"), names(&[]));
        let error = choose(&[], &all, -0.5, loss).expect_err("refused").to_string();
        assert!(error.contains("all of 5 more tensors") && error.contains("0.00 points"), "{error}");
    }

    #[test]
    fn a_tensor_that_has_its_noise_from_elsewhere_comes_last() {
        let layer = |name: &str, ratio, source| Layer {
            name: name.into(),
            op: "conv",
            shape: [1; 3],
            element: plan::Element::Int8,
            cut: false,
            ratio,
            cosine: 1.0,
            cut_off: 0.0,
            spread: 1.0,
            source,
        };
        let layers = [layer("first", 30.0, None), layer("second", 29.9, Some(30.0)), layer("third", 20.0, Some(40.0))];
        assert_eq!(noisiest_first(names(&["second", "first", "third"]), &layers), names(&["third", "first", "second"]));
    }
}
