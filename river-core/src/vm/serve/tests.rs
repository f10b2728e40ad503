use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::*;
use crate::id::{HostId, ImageHash};
use crate::image::ImageCache;
use crate::key::ClusterKey;
use crate::vm::{Vm, VmConfig};

fn spec(image_len: u64) -> HostSpec {
    let loopback = Ipv4Addr::LOCALHOST.into();
    HostSpec {
        host: HostId::fresh(),
        image: ImageHash([7; 32]),
        image_len,
        triple: image::host_triple(),
        initiator: SocketAddr::new(loopback, 1),
        initiator_host: HostId::fresh(),
        listen: vec![loopback],
        args: Vec::new(),
        env: Vec::new(),
        directory: Vec::new(),
        recoverable: false,
        taped: false,
        trace: None,
    }
}

/// The next message of a VM, skipping the signs of life that it gives whenever something takes long.
async fn said(from: &mut Incoming<FromVm>) -> FromVm {
    loop {
        match from.next().await {
            Ok(Some(FromVm::Alive)) => {}
            Ok(Some(message)) => return message,
            other => panic!("{other:?}"),
        }
    }
}

/// Begins a conversation of a program that wants to lease the VM, and returns the VM's answer.
async fn acquire(vm: &Vm, key: &ClusterKey) -> (rt::Sender<ToVm>, Incoming<FromVm>, FromVm) {
    let program = ProgramId::fresh();
    let (_, stream) = control::dial(vm.info().address, key, &Hello::Lease { program }).await.unwrap();
    let (to, mut from) = control::split::<ToVm, FromVm>(stream);
    to.try_send(ToVm::Acquire(Tenant { program, name: "test".into() })).unwrap();
    let answer = said(&mut from).await;
    (to, from, answer)
}

/// The conversation of a program that has leased the VM and ships an image to it.
async fn shipping(vm: &Vm, key: &ClusterKey, image_len: u64) -> (rt::Sender<ToVm>, Incoming<FromVm>) {
    let (to, mut from, answer) = acquire(vm, key).await;
    assert!(matches!(answer, FromVm::Acquired));
    to.try_send(ToVm::Start(spec(image_len))).unwrap();
    assert!(matches!(said(&mut from).await, FromVm::NeedImage));
    (to, from)
}

/// A refused image may be on its way already, and its program must learn why it was refused.
#[test]
fn an_image_that_is_refused_does_not_end_the_conversation() {
    let (key, cache) = (ClusterKey::from_bytes([7; 32]), Arc::new(ImageCache::in_memory(500)));
    let vm = Vm::start_with(VmConfig::default().hidden(), key.clone(), cache).unwrap();
    rt::block_on(async {
        let (to, mut from) = shipping(&vm, &key, 2000).await;
        for _ in 0..20 {
            to.try_send(ToVm::Image(vec![0; 100].into())).unwrap();
        }
        let FromVm::Refused(why) = said(&mut from).await else { panic!("it is kept") };
        assert!(why.contains("larger than the cache"), "{why}");
        to.try_send(ToVm::Renew).unwrap();
        assert!(matches!(from.next().await, Ok(Some(FromVm::Alive))));
    });
}

#[test]
fn an_image_for_another_architecture_is_refused_before_it_is_sent() {
    let (key, cache) = (ClusterKey::from_bytes([7; 32]), Arc::new(ImageCache::in_memory(500)));
    let vm = Vm::start_with(VmConfig::default().hidden(), key.clone(), cache).unwrap();
    rt::block_on(async {
        let (to, mut from, _) = acquire(&vm, &key).await;
        to.try_send(ToVm::Start(HostSpec { triple: "riscv64-linux-gnu".into(), ..spec(100) })).unwrap();
        let FromVm::Refused(why) = said(&mut from).await else { panic!("it is not refused") };
        assert!(why.contains("riscv64-linux-gnu") && why.contains(&image::host_triple()), "{why}");
    });
}

/// A compressed piece must be what it was announced to be, before memory is taken.
#[test]
fn a_piece_that_becomes_too_long_is_refused() {
    let bomb = Bytes::from(lz4_flex::block::compress(&vec![0; 16 << 20]));
    for length in [1 << 30, 100] {
        let (key, cache) = (ClusterKey::from_bytes([7; 32]), Arc::new(ImageCache::in_memory(1 << 30)));
        let vm = Vm::start_with(VmConfig::default().hidden(), key.clone(), cache).unwrap();
        rt::block_on(async {
            let (to, mut from) = shipping(&vm, &key, 1 << 30).await;
            to.try_send(ToVm::Packed { length, bytes: bomb.clone() }).unwrap();
            let FromVm::Refused(why) = said(&mut from).await else { panic!("it is kept") };
            assert!(why.contains("a piece of the image"), "{why}");
            to.try_send(ToVm::Renew).unwrap();
            assert!(matches!(from.next().await, Ok(Some(FromVm::Alive))));
        });
    }
}

/// It has heard how the host ended, and must also hear that the VM is gone.
#[test]
fn a_program_whose_host_has_died_hears_that_its_vm_stops() {
    let image = Bytes::from(std::fs::read("/bin/false").unwrap());
    let (key, cache) = (ClusterKey::from_bytes([7; 32]), Arc::new(ImageCache::in_memory(64 << 20)));
    let vm = Vm::start_with(VmConfig::default().hidden(), key.clone(), cache).unwrap();
    let heard = rt::block_on(async {
        let (to, mut from, _) = acquire(&vm, &key).await;
        let hash = ImageHash(*blake3::hash(&image).as_bytes());
        to.try_send(ToVm::Start(HostSpec { image: hash, ..spec(image.len() as u64) })).unwrap();
        to.try_send(ToVm::Image(image)).unwrap();
        to.try_send(ToVm::Image(Bytes::new())).unwrap();
        // In any order.
        let (mut how, mut is_started) = (None, false);
        while how.is_none() || !is_started {
            match said(&mut from).await {
                FromVm::Exited { how: text, .. } => how = Some(text),
                FromVm::Started { .. } => is_started = true,
                FromVm::NeedImage => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(how.is_some_and(|how| how.contains("exit code 1")));
        vm.stop();
        let end = async {
            let mut heard = Vec::new();
            while let Ok(Some(message)) = from.next().await {
                heard.push(format!("{message:?}"));
            }
            heard
        };
        rt::timeout(Duration::from_secs(20), end).await
    });
    assert!(heard.is_ok_and(|heard| heard.iter().any(|text| text.contains(STOPPED))));
}

/// As when the program takes another checkpoint.
#[test]
fn what_is_kept_may_be_forgotten_while_an_image_is_on_its_way() {
    let (key, cache) = (ClusterKey::from_bytes([7; 32]), Arc::new(ImageCache::in_memory(500)));
    let vm = Vm::start_with(VmConfig::default().hidden(), key.clone(), cache).unwrap();
    rt::block_on(async {
        let (to, mut from) = shipping(&vm, &key, 1).await;
        to.try_send(ToVm::Forget { run: ProgramId::fresh(), from: 0, before: 1 }).unwrap();
        to.try_send(ToVm::Image(Bytes::from_static(&[0]))).unwrap();
        to.try_send(ToVm::Image(Bytes::new())).unwrap();
        let FromVm::Refused(why) = said(&mut from).await else { panic!("it is started") };
        assert!(why.starts_with("cannot keep the image"), "{why}");
    });
}

#[test]
fn a_vm_that_is_given_back_before_the_image_has_come_is_free() {
    let (key, cache) = (ClusterKey::from_bytes([7; 32]), Arc::new(ImageCache::in_memory(500)));
    let vm = Vm::start_with(VmConfig::default().hidden(), key.clone(), cache).unwrap();
    rt::block_on(async {
        let (to, mut from) = shipping(&vm, &key, 100).await;
        to.try_send(ToVm::Release).unwrap();
        // The program says nothing more.
        while let Ok(Some(message)) = from.next().await {
            assert!(matches!(message, FromVm::Alive), "{message:?}");
        }
        assert!(matches!(acquire(&vm, &key).await.2, FromVm::Acquired));
    });
}

/// On a slow network, sending the image, accepted or refused, takes longer than a silence may last, and renewals queue
/// behind it.
#[test]
fn who_ships_an_image_slowly_hears_that_it_arrives_and_keeps_the_lease() {
    for refused in [false, true] {
        let key = ClusterKey::from_bytes([7; 32]);
        let cache = Arc::new(ImageCache::in_memory(if refused { 1 } else { 1 << 20 }));
        let vm = Vm::start_with(VmConfig::default().hidden(), key.clone(), cache).unwrap();
        rt::block_on(async {
            let (to, mut from) = shipping(&vm, &key, 1000).await;
            let pieces = to.clone();
            let shipping = rt::spawn(async move {
                // Longer than a lease lasts.
                while pieces.try_send(ToVm::Image(Bytes::from_static(&[0]))).is_ok() {
                    rt::sleep(lease::TERM / 100).await;
                }
            });
            if refused {
                assert!(matches!(said(&mut from).await, FromVm::Refused(_)));
            }
            let start = Instant::now();
            while start.elapsed() < lease::TERM + Duration::from_secs(1) {
                let heard = rt::timeout(lease::TERM, from.next()).await;
                assert!(matches!(heard, Ok(Ok(Some(FromVm::Alive)))));
            }
            assert!(matches!(acquire(&vm, &key).await.2, FromVm::Busy(_)));
            to.close();
            shipping.await;
        });
    }
}
