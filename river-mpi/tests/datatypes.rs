//! Messages described by datatypes, and serde values.

use river_mpi::testing::world;
use river_mpi::{Datatype, ErrorClass, ErrorHandler, PROC_NULL};

#[test]
fn a_matrix_is_transposed_by_its_datatype() {
    // The largest matrix is sent in pieces.
    for n in [1_usize, 5, 150] {
        world(2, |world| {
            let number = Datatype::of::<f64>();
            let column = number.vector(n, 1, n as isize);
            let transposed = column.hvector(n, 1, 8).commit();
            let matrix: Vec<f64> = (0..n * n).map(|i| i as f64).collect();
            let is_transposed = |other: &[f64]| (0..n * n).all(|i| other[i] == matrix[i % n * n + i / n]);
            if world.rank() == 0 {
                world.send_as(&matrix, 1, &transposed, 1, 0)?;
                // Once more, transposed by the receiver's datatype.
                world.send(&matrix, 1, 1)?;
                world.isend_as(&matrix, 1, &transposed, 1, 2)?.wait()?;
                world.ssend_as(&matrix, 1, &transposed, 1, 3)?;
            } else {
                let mut received = vec![0.0; n * n];
                world.recv_into(&mut received, 0, 0)?;
                assert!(is_transposed(&received));
                received.fill(0.0);
                let status = world.recv_as(&mut received, 1, &transposed, 0, 1)?;
                assert_eq!(transposed.count_in(status.bytes()), Some(1));
                assert!(is_transposed(&received));
                // Transposing twice restores the matrix.
                received.fill(0.0);
                world.irecv_as(&mut received, 1, &transposed, 0, 2)?.wait()?;
                assert_eq!(received, matrix);
                world.recv_into(&mut received, 0, 3)?;
                assert!(is_transposed(&received));
            }
            Ok(())
        });
    }
}

#[test]
fn every_mode_of_sending_takes_a_datatype() {
    world(2, |world| {
        let every_second = Datatype::of::<i32>().vector(3, 1, 2).commit();
        let other = 1 - world.rank();
        if world.rank() == 0 {
            world.buffer_attach(1000)?;
            let data = [1, 0, 2, 0, 3];
            world.recv::<u8>(1, 9)?;
            world.rsend_as(&data, 1, &every_second, 1, 0)?;
            let requests = [
                world.irsend_as(&data, 1, &every_second, 1, 0)?,
                world.issend_as(&data, 1, &every_second, 1, 0)?,
                world.ibsend_as(&data, 1, &every_second, 1, 0)?,
            ];
            for request in requests {
                request.wait()?;
            }
            world.bsend_as(&data, 1, &every_second, 1, 0)?;
        } else {
            let mut received = [[0; 3]; 5];
            let [first, second, rest @ ..] = &mut received;
            let (first, second) = (world.irecv_into(first, 0, 0)?, world.irecv_into(second, 0, 0)?);
            world.send(&[1_u8], 0, 9)?;
            first.wait()?;
            second.wait()?;
            for place in rest {
                world.recv_into(place, 0, 0)?;
            }
            assert_eq!(received, [[1, 2, 3]; 5]);
        }
        let mut buffer = [world.rank() as i32, 9, 5, 9, 6];
        world.sendrecv_replace_as(&mut buffer, (1, &every_second), other, 1, other, 1)?;
        assert_eq!(buffer, [other as i32, 9, 5, 9, 6]);
        Ok(())
    });
}

#[test]
fn only_what_the_datatype_says_is_touched() {
    world(2, |world| {
        let every_second = Datatype::of::<i32>().vector(3, 1, 2).commit();
        world.set_error_handler(ErrorHandler::Return);
        if world.rank() == 0 {
            world.send(&[1, 2], 1, 0)?;
            world.send(&[1, 2, 3, 4], 1, 0)?;
            assert_eq!(world.send_as(&[0; 4], 1, &every_second, 1, 0).unwrap_err().class(), ErrorClass::Type);
        } else {
            let mut buffer = [9; 6];
            // A message shorter than the type, as MPI permits.
            let status = world.recv_as(&mut buffer, 1, &every_second, 0, 0)?;
            assert_eq!((buffer, every_second.elements_in(status.bytes())), ([1, 9, 2, 9, 9, 9], Some(2)));
            let error = world.recv_as(&mut buffer, 1, &every_second, 0, 0).unwrap_err();
            assert_eq!((error.class(), buffer), (ErrorClass::Truncate, [1, 9, 2, 9, 9, 9]));
        }
        Ok(())
    });
}

#[test]
fn values_of_any_type() {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    enum Shape {
        Circle { radius: f64 },
        Polygon(Vec<(f64, f64)>),
    }
    world(2, |world| {
        let shapes = vec![Shape::Circle { radius: 1.5 }, Shape::Polygon(vec![(0.0, 1.0); 20_000])];
        world.set_error_handler(ErrorHandler::Return);
        if world.rank() == 0 {
            world.send_value(&shapes, 1, 0)?;
            world.isend_value("text", 1, 1)?.wait()?;
            world.send_value(&1_u8, 1, 2)?;
        } else {
            assert_eq!(world.recv_value::<Vec<Shape>>(0, 0)?.0, shapes);
            assert_eq!(world.irecv_value::<String>(0, 1)?.wait()?.0, "text");
            assert_eq!(world.recv_value::<String>(0, 2).unwrap_err().class(), ErrorClass::Type);
        }
        Ok(())
    });
}

/// A receive must write each byte only once (MPI 1.3, section 3.12.5); the same holds for collective operations.
#[test]
fn what_would_go_to_one_byte_twice_is_not_received() {
    world(3, |world| {
        world.set_error_handler(ErrorHandler::Return);
        let int = Datatype::of::<i32>();
        let staircase = int.vector(2, 2, 1).commit();
        let mut buffer = [0; 12];
        let error = world.irecv_as(&mut buffer, 1, &staircase, PROC_NULL, 0).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Type, "{error}");
        // Sending with this type is allowed, and so is receiving the resulting data.
        if world.rank() == 0 {
            world.send_as(&[1, 2, 3], 1, &staircase, 1, 0)?;
        } else if world.rank() == 1 {
            assert_eq!(world.recv::<i32>(0, 0)?.0, [1, 2, 2, 3]);
        }
        // If a call that sends and receives is rejected, it has sent nothing.
        let me = world.rank();
        let error = world.sendrecv_replace_as(&mut buffer, (1, &staircase), me, 3, me, 3).unwrap_err();
        assert_eq!((error.class(), world.iprobe(me, 3)?), (ErrorClass::Type, None));
        let on_itself = int.with_bounds(0, 0).commit();
        let ours = world.allgather_as(&[1], (1, &int.commit()), &mut buffer, (1, &on_itself));
        assert_eq!(ours.unwrap_err().class(), ErrorClass::Type);
        let twice = [0..1, 0..1, 1..2];
        let ours = world.allgatherv_as(&[1], (1, &int.commit()), &mut buffer, (&twice, &int.commit()));
        assert_eq!(ours.unwrap_err().class(), ErrorClass::Type);
        // Interleaved columns do not overlap.
        let column = int.vector(4, 1, 3).with_bounds(0, 4).commit();
        let mine = [world.rank() as i32; 4];
        world.allgather_as(&mine, (4, &int.commit()), &mut buffer, (1, &column))?;
        assert_eq!(buffer, [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]);
        Ok(())
    });
}

/// MPI 1.3, section 3.12.3: bounds are those of the entries of the type map.
#[test]
fn what_has_no_data_moves_no_bounds() {
    let int = Datatype::of::<i32>();
    let nothing = int.contiguous(0);
    let with_nothing = Datatype::structure(&[(1, 0, int.clone()), (1, 100, nothing.clone())]);
    assert_eq!((with_nothing.size(), with_nothing.extent()), (4, 4));
    let far = nothing.hindexed(&[(1, 0), (2, 400)]);
    assert_eq!((far.size(), far.extent()), (0, 0));
    let (byte, no_double) = (Datatype::of::<u8>(), Datatype::of::<f64>().contiguous(0));
    let unaligned = Datatype::structure(&[(0, 0, Datatype::of::<f64>()), (1, 8, no_double), (1, 0, byte)]);
    assert_eq!((unaligned.size(), unaligned.extent()), (1, 1), "what is not there is not aligned");
    let bounded = Datatype::structure(&[(1, 0, int), (1, 100, nothing.with_bounds(0, 8))]);
    assert_eq!((bounded.size(), bounded.extent()), (4, 8), "bounds that were set count all the same");
}
