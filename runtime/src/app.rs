//! The frame loop: firmware's `main` and the simulator's are a few lines around it.

use kernels::Isa;

use crate::engine::Engine;
use crate::error::RunError;
use crate::platform::{Event, Platform};
use crate::policy::Policy;

/// Runs frames until the platform has no more. A frame that no config fits is reported and skipped.
///
/// # Errors
/// What [`Engine::run_frame`] returns, but for [`RunError::BudgetTooSmall`].
pub fn run<I: Isa>(
    engine: &mut Engine<'_, I>,
    policy: &mut Policy<'_>,
    platform: &mut impl Platform,
) -> Result<(), RunError> {
    while let Some(budget) = platform.next_frame(engine.input_mut()) {
        policy.set_slowdown(platform.slowdown_in_256());
        let started = platform.now();
        match engine.run_frame(policy, budget, started, platform) {
            Ok(outcome) => {
                platform.answer(engine.features());
                platform.report(&Event::Frame(outcome));
            }
            Err(error @ RunError::BudgetTooSmall { .. }) => platform.report(&Event::Refused(error)),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
