//! Functions and methods of up to eight arguments that can be called remotely.
//!
//! Each trait is implemented for every function item, method and closure of a suitable shape. The implementations
//! differ only in the tuple of arguments, so the compiler selects the intended one, and an argument such as `3` gets
//! the type that the function expects.

/// A function that can be called on another machine with the argument tuple `Args`.
///
/// Implemented for every `Fn(A, B, ..) -> R` of up to eight arguments. It must capture nothing, which is checked when
/// the caller is compiled: only the function's name is sent, so everything it needs must be an argument.
pub trait RemoteFn<Args>: Copy + Send + 'static {
    /// The type of the result.
    type Output;

    /// Calls the function locally.
    fn run(&self, args: Args) -> Self::Output;
}

/// A method that can be called on an object of type `T` on another machine with the argument tuple `Args`.
///
/// Implemented for every `Fn(&T, A, ..) -> R` and `Fn(&mut T, A, ..) -> R` of up to seven further arguments;
/// `Access` ([`ByRef`] or [`ByMut`]) distinguishes the two and is always inferred.
pub trait RemoteMethod<T, Args, Access>: Copy + Send + 'static {
    /// The type of the result.
    type Output;

    /// Calls the method locally.
    fn run(&self, object: &mut T, args: Args) -> Self::Output;
}

/// The [`RemoteMethod`] takes `&T`.
#[derive(Debug)]
pub enum ByRef {}

/// The [`RemoteMethod`] takes `&mut T`.
#[derive(Debug)]
pub enum ByMut {}

macro_rules! functions {
    ($($arg:ident)*) => {
        impl<F, R, $($arg,)*> RemoteFn<($($arg,)*)> for F
        where
            F: Fn($($arg),*) -> R + Copy + Send + 'static,
        {
            type Output = R;

            #[allow(non_snake_case)]
            fn run(&self, ($($arg,)*): ($($arg,)*)) -> R {
                self($($arg),*)
            }
        }
    };
}

macro_rules! methods {
    ($($arg:ident)*) => {
        impl<F, T, R, $($arg,)*> RemoteMethod<T, ($($arg,)*), ByRef> for F
        where
            F: Fn(&T, $($arg),*) -> R + Copy + Send + 'static,
        {
            type Output = R;

            #[allow(non_snake_case)]
            fn run(&self, object: &mut T, ($($arg,)*): ($($arg,)*)) -> R {
                self(object, $($arg),*)
            }
        }

        impl<F, T, R, $($arg,)*> RemoteMethod<T, ($($arg,)*), ByMut> for F
        where
            F: Fn(&mut T, $($arg),*) -> R + Copy + Send + 'static,
        {
            type Output = R;

            #[allow(non_snake_case)]
            fn run(&self, object: &mut T, ($($arg,)*): ($($arg,)*)) -> R {
                self(object, $($arg),*)
            }
        }
    };
}

functions!();
functions!(A);
functions!(A B);
functions!(A B C);
functions!(A B C D);
functions!(A B C D E);
functions!(A B C D E G);
functions!(A B C D E G H);
functions!(A B C D E G H I);

methods!();
methods!(A);
methods!(A B);
methods!(A B C);
methods!(A B C D);
methods!(A B C D E);
methods!(A B C D E G);
methods!(A B C D E G H);
