//! The layers keep working when the program is checkpointed, when it is killed and restored, and when its VRs move.

mod killed;
mod moved;
mod programs;
