//! [`PolicyMemory`]: what a policy works in, on the heap of a desktop.

use plan::Image;
use runtime::policy::{Ahead, Estimate, Memory, Route};

/// Owns the slices that [`runtime::policy::Policy::new`] borrows; a device has them as statics.
#[derive(Clone, Debug)]
pub struct PolicyMemory {
    segments: Vec<Estimate>,
    routes: Vec<Route>,
    ahead: Vec<Ahead>,
}

impl PolicyMemory {
    /// As much as an image needs.
    #[must_use]
    pub fn of(image: &Image<'_>) -> Self {
        let [segments, routes, ahead] = Memory::needed(image);
        Self {
            segments: vec![Estimate::default(); segments],
            routes: vec![Route::default(); routes],
            ahead: vec![Ahead::default(); ahead],
        }
    }

    /// Lends it.
    pub fn lend(&mut self) -> Memory<'_> {
        Memory { segments: &mut self.segments, routes: &mut self.routes, ahead: &mut self.ahead }
    }

    /// Bytes that a device needs for it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.segments) + size_of_val(&*self.routes) + size_of_val(&*self.ahead)
    }
}
