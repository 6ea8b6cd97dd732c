//! Which configs are worth shipping: no other is both cheaper and better.

/// Marks the configs on the frontier of `(cost, score)`; of equal ones the first.
#[must_use]
pub fn frontier(configs: &[(u64, u64)]) -> Vec<bool> {
    let beaten = |index: usize, (cost, score): (u64, u64)| {
        configs.iter().enumerate().any(|(other, &(other_cost, other_score))| {
            let no_worse = other_cost <= cost && other_score >= score;
            let better = other_cost < cost || other_score > score;
            no_worse && (better || other < index)
        })
    };
    configs.iter().enumerate().map(|(index, &config)| !beaten(index, config)).collect()
}

#[cfg(test)]
mod tests {
    use super::frontier;

    #[test]
    fn keeps_what_nothing_beats() {
        let configs = [(10, 80), (20, 90), (15, 79), (20, 90), (30, 95), (31, 95)];
        assert_eq!(frontier(&configs), [true, true, false, false, true, false]);
    }
}
