//! Which config to be on: integer functions of the cost table, the path so far and what is left of the budget.
//!
//! ```text
//! image.cost(target, segment) ──► Policy (costs ahead of every cut of every config) ──► choose, reconsider
//!                                    ▲ learn(segment, measured)
//! ```
//!
//! Two numbers stand before every segment of every config. *Ahead* is what the rest of the path is predicted to
//! cost. *Need* is what the deadline rests on: the bound of the next segment plus the bound of the cheapest way to
//! finish behind it, whichever config that is. A hard limit asks only for the need, so a run may begin a path that
//! it cannot be sure to finish, as long as it can still leave it (`docs/deadlines.md` has the proof).
//!
//! Configs are kept in the order of their paths, so those that share a start are neighbours, and a decision at a
//! cut is one walk over them.

mod decide;
mod delays;
mod path_order;
mod table;

pub use decide::Left;
pub use path_order::shares;
pub use table::{Ahead, Estimate, Memory, Policy, Route, Settings};
