/* The message rate of several pairs at once, as benches/mpi.rs measures it, for any MPI in C: rank r of the lower half
 * sends windows of messages to rank r + half.
 * Usage: pairs ROUNDS SIZE...   prints lines "pairs size number", one a round: millions of messages a second. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#define WINDOW 64
#define TIMES 100

int main(int argc, char **argv) {
    int rank, size, answer = 0;
    MPI_Request requests[WINDOW];
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    int half = size / 2, other = (rank + half) % size;
    for (int round = 0; round < atoi(argv[1]); round++)
        for (int a = 2; a < argc; a++) {
            size_t len = strtoul(argv[a], 0, 10);
            char *memory = calloc(WINDOW, len);
            double start = 0;
            for (int i = -TIMES / 10; i < TIMES; i++) {
                if (i == 0) {
                    MPI_Barrier(MPI_COMM_WORLD);
                    start = MPI_Wtime();
                }
                for (int w = 0; w < WINDOW; w++)
                    if (rank < half) MPI_Isend(memory, len, MPI_BYTE, other, 0, MPI_COMM_WORLD, &requests[w]);
                    else MPI_Irecv(memory + w * len, len, MPI_BYTE, other, 0, MPI_COMM_WORLD, &requests[w]);
                MPI_Waitall(WINDOW, requests, MPI_STATUSES_IGNORE);
                if (rank < half) MPI_Recv(&answer, 4, MPI_BYTE, other, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
                else MPI_Send(&answer, 4, MPI_BYTE, other, 1, MPI_COMM_WORLD);
            }
            MPI_Barrier(MPI_COMM_WORLD);
            double time = MPI_Wtime() - start;
            if (rank == 0) printf("pairs %zu %.9g\n", len, half * WINDOW * (double)TIMES / time / 1e6);
            free(memory);
        }
    MPI_Finalize();
    return 0;
}
