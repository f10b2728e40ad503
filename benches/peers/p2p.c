/* The exchanges of benches/mpi.rs, for any MPI in C: latency, bandwidth, bidirectional bandwidth and message rate.
 * Usage: p2p ROUNDS SIZE...   prints lines "measure size number", one a round. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int rank, other;
static char *out, *in;

static int times(size_t size, int window) {
    size_t n = (64u << 20) / (size ? size : 1) / window;
    size_t most = window == 1 ? 4000 : 300;
    return n < 4 ? 4 : n > most ? most : (int)n;
}

static double latency(size_t size) {
    int n = times(size, 1), warm = n / 10 + 1;
    double start = 0;
    for (int i = 0; i < warm + n; i++) {
        if (i == warm) start = MPI_Wtime();
        if (rank == 0) {
            MPI_Send(out, size, MPI_BYTE, other, 0, MPI_COMM_WORLD);
            MPI_Recv(in, size, MPI_BYTE, other, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        } else {
            MPI_Recv(in, size, MPI_BYTE, other, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            MPI_Send(out, size, MPI_BYTE, other, 0, MPI_COMM_WORLD);
        }
    }
    return (MPI_Wtime() - start) / n / 2;
}

/* Seconds for a window of messages, one way or both ways. */
static double windows(size_t size, int window, int both) {
    int n = times(size, window), warm = n / 10 + 1;
    MPI_Request requests[128];
    char answer = 0;
    double start = 0;
    for (int i = 0; i < warm + n; i++) {
        int r = 0;
        if (i == warm) start = MPI_Wtime();
        if (rank == 1 || both)
            for (int w = 0; w < window; w++)
                MPI_Irecv(in + w * size, size, MPI_BYTE, other, 0, MPI_COMM_WORLD, &requests[r++]);
        if (rank == 0 || both)
            for (int w = 0; w < window; w++)
                MPI_Isend(out, size, MPI_BYTE, other, 0, MPI_COMM_WORLD, &requests[r++]);
        MPI_Waitall(r, requests, MPI_STATUSES_IGNORE);
        if (rank == 1) MPI_Send(&answer, 1, MPI_BYTE, other, 1, MPI_COMM_WORLD);
        else MPI_Recv(&answer, 1, MPI_BYTE, other, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    }
    return (MPI_Wtime() - start) / n;
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    other = 1 - rank;
    out = malloc(8 << 20);
    in = malloc(8 << 20);
    memset(out, 1, 8 << 20);
    memset(in, 2, 8 << 20);
    for (int round = 0; round < atoi(argv[1]); round++)
        for (int a = 2; a < argc; a++) {
            size_t size = strtoul(argv[a], 0, 10);
            size_t window = (4 << 20) / (size ? size : 1);
            window = window < 1 ? 1 : window > 64 ? 64 : window;
            double l = latency(size), b = windows(size, window, 0), bi = windows(size, window, 1);
            if (rank) continue;
            printf("latency %zu %.9g\n", size, l * 1e6);
            printf("bandwidth %zu %.9g\n", size, size * window / b / 1e9);
            printf("bidirectional %zu %.9g\n", size, 2 * size * window / bi / 1e9);
            printf("rate %zu %.9g\n", size, window / b / 1e6);
        }
    MPI_Finalize();
    return 0;
}
