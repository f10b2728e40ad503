//! Calls functions and objects of another program, `rai_server`, by name.
//!
//! ```text
//! $ cargo run --release --example rai_client -- "add 1 2" "push A" "pop"
//! 3
//! 1
//! A
//! ```
//!
//! Without commands it lists them, and reads them from standard input.

use std::io::BufRead;
use std::time::{Duration, Instant};

use clap::Parser;
use river::VrError;
use river::core::{Service, ServiceError};
use river::prelude::*;
use river::rai::{CallError, Object, Rai};

/// The available commands.
const COMMANDS: &str = "\
Commands:
  add A B      the sum
  mean A B ..  the mean
  sqrt A       the square root; of a negative number, a panic there
  new          a new stack, which lives there
  push TEXT    what lies on the stack then
  pop          takes it off again
  len          how much lies on the stack
  stacks       how many stacks there are, of all clients
  wait         until somebody cancels it, or the server ends
  again        look the server up once more";

/// Call functions of a program that serves others. Without commands, they are read from standard input, one per line.
#[derive(Parser)]
#[command(after_help = COMMANDS)]
struct Args {
    /// The name under which the server is published
    #[arg(long, value_name = "NAME", default_value = "calculator")]
    name: String,
    /// How many seconds to search for it
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    patience: u64,
    /// What to call
    commands: Vec<String>,
}

/// A stack, of which this program knows only the name of the type.
struct Stack;

struct Client<'a> {
    vr: &'a Vr,
    name: &'a str,
    server: Rai<'a>,
    stack: Option<Object<'a, Stack>>,
}

impl<'a> Client<'a> {
    /// The stack, created on first use.
    fn stack(&mut self) -> Result<&Object<'a, Stack>, CallError> {
        match &mut self.stack {
            Some(stack) => Ok(stack),
            empty => Ok(empty.insert(self.server.create_named("stack", ())?)),
        }
    }

    fn obey(&mut self, command: &str) -> river::Result<String> {
        let mut words = command.split_whitespace();
        let verb = words.next().unwrap_or_default();
        let rest: Vec<&str> = words.collect();
        let numbers = match verb {
            "add" | "mean" | "sqrt" => rest.iter().map(|word| number(word)).collect::<river::Result<_>>()?,
            _ => Vec::new(),
        };
        Ok(match (verb, &numbers[..]) {
            ("add", &[a, b]) => self.server.call_named::<f64, _>("add", (a, b))?.to_string(),
            ("mean", numbers) => self.server.call_named::<f64, _>("mean", (numbers.to_vec(),))?.to_string(),
            ("sqrt", &[a]) => self.server.call_named::<f64, _>("sqrt", (a,))?.to_string(),
            ("wait", _) => {
                let () = self.server.call_named("wait", ())?;
                "it returned".into()
            }
            ("stacks", _) => self.server.call_named::<usize, _>("stacks", ())?.to_string(),
            ("new", _) => {
                self.stack = None;
                self.stack()?;
                "a new stack".into()
            }
            ("push", _) => self.stack()?.call_named::<usize, _>("push", (rest.join(" "),))?.to_string(),
            ("pop", _) => {
                self.stack()?.call_named::<Option<String>, _>("pop", ())?.unwrap_or_else(|| "nothing".into())
            }
            ("len", _) => self.stack()?.call_named::<usize, _>("len", ())?.to_string(),
            ("again", _) => {
                (self.stack, self.server) = (None, Rai::look_up(self.vr, self.name)?);
                "found".into()
            }
            // Three calls that are refused: the wrong types, a name that is not exported, and code of this program.
            ("types", _) => self.server.call_named::<i32, _>("add", (1_i32, 2_i32))?.to_string(),
            ("nobody", _) => self.server.call_named::<f64, _>("nobody", ())?.to_string(),
            ("code", _) => self.server.call(|x: i64| x + 1, (1,))?.to_string(),
            _ => return Err(VrError::msg(format!("{command:?} is no command: see --help"))),
        })
    }
}

fn number(word: &str) -> river::Result<f64> {
    word.parse().map_err(|_| VrError::msg(format!("{word:?} is no number")))
}

/// Searches until the server is found, or the time is up.
fn look_up(vr: &Vr, args: &Args) -> Result<Service, ServiceError> {
    let start = Instant::now();
    loop {
        match vr.look_up(&args.name) {
            Err(ServiceError::NotFound(_)) if start.elapsed() < Duration::from_secs(args.patience) => {}
            found => return found,
        }
    }
}

fn program(vr: &Vr, args: &Args) -> river::Result {
    let service = look_up(vr, args)?;
    let mut client = Client { vr, name: &args.name, server: Rai::connect(vr, service.vr), stack: None };
    let mut say = |command: &str| {
        let answer = client.obey(command);
        match &answer {
            Ok(answer) => println!("{answer}"),
            Err(error) => {
                println!("error: {error}");
                // If RUST_BACKTRACE is set for the server, the backtrace of a panic there.
                error.trace().into_iter().for_each(|trace| eprintln!("{trace}"));
            }
        }
        answer.is_ok()
    };
    if args.commands.is_empty() {
        eprintln!("[connected to {:?}, which is {}]\n{COMMANDS}", args.name, service.process);
        for line in std::io::stdin().lock().lines() {
            say(&line?);
        }
        return Ok(());
    }
    match args.commands.iter().filter(|command| !say(command)).count() {
        0 => Ok(()),
        failed => Err(VrError::msg(format!("{failed} of {} commands failed", args.commands.len()))),
    }
}

fn main() -> river::ExitCode {
    river::become_host_if_asked();
    let args = Args::parse();
    river::run(|vr| program(vr, &args))
}
