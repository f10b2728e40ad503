//! What clients of other programs may request from a server, even from an unrestricted one.

use crate::protocol::{Failure, Function, Op};

/// Refuses requests that are meaningless between programs (code pointers, which the server does not have, and passing
/// references on), and requests that affect other clients or stop the server.
pub(crate) fn admit(op: &Op) -> Result<(), Failure> {
    let refused = |why: &str| Err(Failure::Refused(why.into()));
    match op {
        Op::Call(function) | Op::Create { function, .. } | Op::Invoke { function, .. } => match function {
            Function::Named { .. } => Ok(()),
            Function::Code(_) => refused(
                "it is another program's, whose functions have to be called by name (call_named, create_named)",
            ),
        },
        Op::Release(_) | Op::Cancel(_) | Op::Withdraw(_) | Op::Present(_) => Ok(()),
        Op::Grant { .. } => refused("references cannot be granted from another program"),
        Op::Take { .. } => {
            refused("an object cannot be taken to another program: export a method that returns it")
        }
        Op::Put { .. } | Op::Remove(_) | Op::Export(_) => {
            refused("names on a server are given by its own program")
        }
        Op::Back | Op::Stop => refused("only its own program ends it"),
    }
}

#[cfg(test)]
mod tests {
    use river_core::VrId;

    use super::*;
    use crate::protocol::{ObjectId, Reference, Target};

    #[test]
    fn names_and_references_only() {
        let object = ObjectId { owner: VrId::fresh(), number: 1 };
        let named = || Function::Named { name: "f".into(), signature: [0; 16] };
        let target = Target::Object(object);
        for op in [
            Op::Call(named()),
            Op::Create { object, function: named() },
            Op::Invoke { target: target.clone(), function: named() },
            Op::Release(Reference { by: object.owner, number: 1 }),
        ] {
            assert_eq!(admit(&op), Ok(()));
        }
        let reference = Reference { by: object.owner, number: 2 };
        for op in [
            Op::Take { target: target.clone(), function: named() },
            Op::Put { object, name: "x".into(), function: named() },
            Op::Grant { target, reference, to: object.owner },
            Op::Remove("x".into()),
            Op::Stop,
        ] {
            assert!(matches!(admit(&op), Err(Failure::Refused(_))), "{op:?}");
        }
    }
}
