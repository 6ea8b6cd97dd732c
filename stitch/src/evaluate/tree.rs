//! Paths as the tree of their shared starts, in the order in which one walk runs them.
//!
//! ```text
//! a0 a1 a2          a0 ─┬─ a1 ─── a2          a0 (kept)  a1  a2 ends path 0
//! a0 s  b1 b2   ─►      └─ s  ─── b1 ─── b2   resumes: s  b1  b2 ends path 1
//! ```
//!
//! Seven steps, of which the tree runs six. Only what a later branch reads again is kept.

/// One segment that runs once for all paths that begin so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// A path that runs it.
    pub path: usize,
    /// Segments of the path that ran before.
    pub done: usize,
    /// It reads what was kept after `done` segments (the input after none), not what the step before computed.
    pub resumes: bool,
    /// Its output is kept, as a later step resumes there.
    pub keeps: bool,
    /// Paths whose output is its output.
    pub ends: Vec<usize>,
}

/// The walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Steps in order.
    pub steps: Vec<Step>,
    /// Segments of the longest path.
    pub depth: usize,
}

impl Tree {
    /// The tree of `paths`; two of them share a start as far as their entries are equal.
    #[must_use]
    pub fn of<T: Ord>(paths: &[Vec<T>]) -> Self {
        let mut order: Vec<usize> = (0..paths.len()).collect();
        order.sort_by(|&a, &b| paths[a].cmp(&paths[b]));
        let mut steps: Vec<Step> = vec![];
        // The steps of the path before, and the path.
        let mut line: Vec<usize> = vec![];
        let mut before: &[T] = &[];
        for path in order {
            let segments = &paths[path];
            let shared = before.iter().zip(segments).take_while(|(a, b)| a == b).count();
            let parts = before.len() > shared;
            line.truncate(shared);
            if let Some(&branch) = line.last().filter(|_| parts && shared < segments.len()) {
                steps[branch].keeps = true;
            }
            for done in shared..segments.len() {
                line.push(steps.len());
                steps.push(Step { path, done, resumes: parts && done == shared, keeps: false, ends: vec![] });
            }
            if let Some(&last) = line.last() {
                steps[last].ends.push(path);
            }
            before = segments;
        }
        Self { steps, depth: paths.iter().map(Vec::len).max().unwrap_or(0) }
    }

    /// Whether a step begins at the input after another one has.
    #[must_use]
    pub fn keeps_input(&self) -> bool {
        self.steps.iter().any(|step| step.resumes && step.done == 0)
    }
}

#[cfg(test)]
mod tests;
