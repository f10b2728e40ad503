//! The lease of a VM: exclusive, and over when its holder stops renewing it.
//!
//! A state machine without a clock: every call is passed the time.

use std::time::{Duration, Instant};

use crate::id::ProgramId;
use crate::protocol::Tenant;

/// A lease that has not been renewed for this long is over.
pub(crate) const TERM: Duration = Duration::from_secs(4);
/// How often a holder renews its lease.
pub(crate) const RENEWAL: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Lease(Option<(Tenant, Instant)>);

impl Lease {
    /// Gives the VM to `tenant`, unless another program holds it, which is returned then. A lease that was not renewed in
    /// time is over only when it has been [ended](Self::expire), as whatever runs for its holder must end first.
    pub(crate) fn acquire(&mut self, tenant: Tenant, now: Instant) -> Result<(), Tenant> {
        match &self.0 {
            Some((holder, _)) if holder.program != tenant.program => Err(holder.clone()),
            _ => {
                self.0 = Some((tenant, now));
                Ok(())
            }
        }
    }

    /// Renews the lease of `tenant`. Returns `false` if it does not hold the lease, or no longer does.
    pub(crate) fn renew(&mut self, tenant: &Tenant, now: Instant) -> bool {
        match &mut self.0 {
            Some((holder, renewed)) if holder.program == tenant.program => {
                *renewed = now;
                true
            }
            _ => false,
        }
    }

    /// Ends the lease if `tenant` holds it.
    pub(crate) fn release(&mut self, tenant: &Tenant) {
        if self.is_held_by(tenant.program) {
            self.0 = None;
        }
    }

    /// Ends a lease that was not renewed in time, and returns its holder.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Tenant> {
        self.0.take_if(|(_, renewed)| now >= *renewed + TERM).map(|(tenant, _)| tenant)
    }

    /// Extends the lease by the time for which the VM did not run: renewals sent meanwhile may still be unread.
    pub(crate) fn forgive(&mut self, deaf: Duration) {
        if let Some((_, renewed)) = &mut self.0 {
            *renewed += deaf;
        }
    }

    /// Returns how long ago the lease was renewed, if there is one.
    pub(crate) fn age(&self, now: Instant) -> Option<Duration> {
        self.0.as_ref().map(|(_, renewed)| now.saturating_duration_since(*renewed))
    }

    pub(crate) fn is_held_by(&self, program: ProgramId) -> bool {
        self.holder().is_some_and(|holder| holder.program == program)
    }

    pub(crate) fn holder(&self) -> Option<&Tenant> {
        self.0.as_ref().map(|(tenant, _)| tenant)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Acquire(usize),
        Renew(usize),
        Release(usize),
        Expire,
        Pass(u64),
        StandStill(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3usize).prop_map(Step::Acquire),
            (0..3usize).prop_map(Step::Renew),
            (0..3usize).prop_map(Step::Release),
            Just(Step::Expire),
            (0..3000u64).prop_map(Step::Pass),
            (0..9000u64).prop_map(Step::StandStill),
        ]
    }

    proptest! {
        /// Nobody gets a VM that another program has, and a program that does not renew its lease within the term loses it.
        #[test]
        fn is_exclusive_and_ends(steps in prop::collection::vec(step(), 1..60)) {
            let tenants: Vec<Tenant> =
                (0..3).map(|i| Tenant { program: ProgramId::fresh(), name: i.to_string() }).collect();
            let (mut lease, mut now) = (Lease::default(), Instant::now());
            let mut model: Option<(usize, Instant)> = None;
            for step in steps {
                let valid = model.filter(|(_, at)| now < *at + TERM).map(|(who, _)| who);
                match step {
                    Step::Acquire(who) => {
                        let granted = lease.acquire(tenants[who].clone(), now).is_ok();
                        prop_assert_eq!(granted, model.is_none_or(|(holder, _)| holder == who));
                        if granted { model = Some((who, now)); }
                    }
                    Step::Renew(who) => {
                        let renewed = lease.renew(&tenants[who], now);
                        prop_assert_eq!(renewed, model.is_some_and(|(holder, _)| holder == who));
                        if renewed { model = Some((who, now)); }
                    }
                    Step::Release(who) => {
                        lease.release(&tenants[who]);
                        model = model.filter(|(holder, _)| *holder != who);
                    }
                    Step::Expire => {
                        let ended = lease.expire(now).map(|tenant| tenant.name);
                        let expected = if valid.is_none() { model.take() } else { None };
                        prop_assert_eq!(ended, expected.map(|(who, _)| who.to_string()));
                    }
                    Step::Pass(millis) => now += Duration::from_millis(millis),
                    Step::StandStill(millis) => {
                        let still = Duration::from_millis(millis);
                        now += still;
                        lease.forgive(still);
                        model = model.map(|(holder, at)| (holder, at + still));
                    }
                }
            }
        }
    }
}
