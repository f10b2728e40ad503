/* The operations of benches/mpi_coll.rs, for any MPI in C, on vectors of doubles.
 * Usage: coll ROUNDS OPERATION,OPERATION... SIZE...   prints lines "operation size microseconds", one a round: the time
 * of one operation on the rank that takes longest. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Operations with a block for each pair of ranks do not go beyond this. */
#define LONGEST_BLOCK (1 << 20)
/* Seconds that one measurement takes, about. */
#define TARGET 0.004

static int rank, ranks;
static double *out, *in;
/* The blocks of the operations whose names end in v, all of the same length. */
static int *counts, *starts;

static int is(const char *a, const char *b) { return !strcmp(a, b); }

static void once(const char *operation, int n) {
    MPI_Comm all = MPI_COMM_WORLD;
    MPI_Datatype real = MPI_DOUBLE;
    if (is(operation, "barrier")) MPI_Barrier(all);
    else if (is(operation, "bcast")) MPI_Bcast(in, n, MPI_DOUBLE, 0, all);
    else if (is(operation, "gather")) MPI_Gather(out, n, MPI_DOUBLE, in, n, MPI_DOUBLE, 0, all);
    else if (is(operation, "scatter")) MPI_Scatter(out, n, MPI_DOUBLE, in, n, MPI_DOUBLE, 0, all);
    else if (is(operation, "allgather")) MPI_Allgather(out, n, MPI_DOUBLE, in, n, MPI_DOUBLE, all);
    else if (is(operation, "alltoall")) MPI_Alltoall(out, n, MPI_DOUBLE, in, n, MPI_DOUBLE, all);
    else if (is(operation, "gatherv")) MPI_Gatherv(out, n, real, in, counts, starts, real, 0, all);
    else if (is(operation, "scatterv")) MPI_Scatterv(out, counts, starts, real, in, n, real, 0, all);
    else if (is(operation, "allgatherv")) MPI_Allgatherv(out, n, real, in, counts, starts, real, all);
    else if (is(operation, "alltoallv")) MPI_Alltoallv(out, counts, starts, real, in, counts, starts, real, all);
    else if (is(operation, "reduce")) MPI_Reduce(out, in, n, MPI_DOUBLE, MPI_SUM, 0, all);
    else if (is(operation, "allreduce")) MPI_Allreduce(out, in, n, MPI_DOUBLE, MPI_SUM, all);
    else if (is(operation, "reduce_scatter")) MPI_Reduce_scatter_block(out, in, n, MPI_DOUBLE, MPI_SUM, all);
    else if (is(operation, "scan")) MPI_Scan(out, in, n, MPI_DOUBLE, MPI_SUM, all);
    else if (is(operation, "exscan")) MPI_Exscan(out, in, n, MPI_DOUBLE, MPI_SUM, all);
}

static int has_blocks(const char *operation) {
    return is(operation, "gather") || is(operation, "gatherv") || is(operation, "scatter") ||
           is(operation, "scatterv") || is(operation, "allgather") || is(operation, "allgatherv") ||
           is(operation, "alltoall") || is(operation, "alltoallv") || is(operation, "reduce_scatter");
}

static double seconds(const char *operation, int n, int repeats) {
    once(operation, n);
    MPI_Barrier(MPI_COMM_WORLD);
    double start = MPI_Wtime();
    for (int i = 0; i < repeats; i++) once(operation, n);
    double mine = (MPI_Wtime() - start) / repeats, longest;
    MPI_Allreduce(&mine, &longest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    return longest;
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    size_t longest = LONGEST_BLOCK * (size_t)ranks > 4 << 20 ? LONGEST_BLOCK * (size_t)ranks : 4 << 20;
    out = malloc(longest);
    in = malloc(longest);
    counts = malloc(ranks * sizeof *counts);
    starts = malloc(ranks * sizeof *starts);
    for (size_t i = 0; i < longest / sizeof *out; i++) out[i] = in[i] = 1;
    for (char *operation = strtok(argv[2], ","); operation; operation = strtok(0, ","))
        for (int a = 3; a < argc; a++) {
            int size = atoi(argv[a]), n = size / sizeof *out;
            if (has_blocks(operation) && size > LONGEST_BLOCK) continue;
            if (is(operation, "barrier") && a > 3) continue;
            for (int i = 0; i < ranks; i++) counts[i] = n, starts[i] = i * n;
            seconds(operation, n, 3);
            double first = seconds(operation, n, 3);
            int repeats = TARGET / first < 3 ? 3 : TARGET / first > 5000 ? 5000 : (int)(TARGET / first);
            for (int round = 0; round < atoi(argv[1]); round++) {
                double time = seconds(operation, n, repeats);
                if (rank == 0) printf("%s %d %.9g\n", operation, size, time * 1e6);
            }
        }
    MPI_Finalize();
    return 0;
}
