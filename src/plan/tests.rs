//! helpers
use super::*;
pub(super) const SHAPE: PlanShape = PlanShape { n_layer: 12, n_head: 12 };
pub(super) fn plan(text: &str) -> Plan {
    text.parse::<PlanExpr>().and_then(|expr| expr.resolve(&SHAPE)).unwrap_or_else(|error| panic!("{error}"))
}
