//! Super flexible messaging as shown on the slides: messages with any attributes, received in any order.
//!
//! ```text
//! cargo run --release --example messages
//! ```

use clap::Parser;
use river::prelude::*;
use serde::{Deserialize, Serialize};

/// Send the messages of the slides from one virtual machine, and print those that another one receives.
#[derive(Parser)]
struct Args {}

#[derive(Default, Serialize, Deserialize)]
struct Stack {
    items: Vec<i32>,
}

impl Stack {
    fn push(&mut self, item: i32) {
        self.items.push(item);
    }

    fn pop(&mut self) -> Option<i32> {
        self.items.pop()
    }
}

#[derive(Serialize, Deserialize)]
struct Sender;

impl VirtualResource for Sender {
    fn main(&mut self, vr: &Vr) -> river::Result {
        let dest = vr.parent().expect("a deployed VR has a parent");
        vr.send(dest, msg! { text: "hello" })?;
        vr.send(dest, msg! { tag: "inputlist", items: [1, 2, 3, 4] })?;
        vr.send(dest, msg! { tag: "inputlist", items: [5, 6, 7] })?;

        let mut stk = Stack::default();
        stk.push(1);
        stk.push(2);
        vr.send(dest, msg! { data: stk })?;
        Ok(())
    }
}

fn program(vr: &Vr) -> river::Result {
    let sender = vr.deploy(&vr.start_local(1)?, |_| Sender)?[0];

    let m = vr.recv(pat! {})?; // any message
    println!("any message: {m}");
    let m = vr.recv(pat! { tag: "inputlist" })?; // specific attribute and value
    println!("by value: {:?}", m.get::<Vec<i32>>("items")?);

    let m = vr.recv(pat! { tag: "inputlist", items: |x: &Vec<i32>| x.len() > 1 })?;
    println!("by predicate: {:?}", m.get::<Vec<i32>>("items")?);
    let m = vr.recv(pat! { src: sender, data: ANY })?;
    let mut stk: Stack = m.get("data")?;
    println!("popped from the stack: {:?} {:?} {:?}", stk.pop(), stk.pop(), stk.pop());
    Ok(())
}

fn main() -> river::ExitCode {
    river::become_host_if_asked();
    Args::parse();
    river::run(program)
}
