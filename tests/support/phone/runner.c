/* Stands for LiteRT's benchmark_model and ExecuTorch's executor_runner on a test's phone. It computes nothing of a
 * model: output k of 10 is the sum of the input's floats k, k + 10, k + 20, ... plus the number of bytes of the model
 * file, which a test can compute itself. What it prints of times is recorded output of the real programs on other
 * devices (see the strings), never a measurement of anything here.
 *
 * Environment of the phone: a file "fault" beside the program makes it fail as its word says.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OUTPUTS 10

static const char *option(int argc, char **argv, const char *name)
{
    size_t n = strlen(name);
    for (int i = 1; i < argc; i++)
        if (!strncmp(argv[i], name, n) && argv[i][n] == '=')
            return argv[i] + n + 1;
    return "";
}

static long size_of(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        fprintf(stderr, "ERROR: cannot open %s\n", path);
        exit(1);
    }
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    fclose(file);
    return size;
}

static void infer(const char *model, const char *input, const char *output)
{
    float sums[OUTPUTS] = {0}, value;
    FILE *file = fopen(input, "rb");
    if (!file)
        exit(1);
    for (long i = 0; fread(&value, sizeof value, 1, file) == 1; i++)
        sums[i % OUTPUTS] += value;
    fclose(file);
    for (int k = 0; k < OUTPUTS; k++)
        sums[k] += (float)size_of(model);
    if (!(file = fopen(output, "wb")) || fwrite(sums, sizeof sums, 1, file) != 1 || fclose(file)) {
        fprintf(stderr, "ERROR: cannot write %s\n", output);
        exit(1);
    }
}

static void misbehave(void)
{
    char word[32] = "", path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 16);
    if (n < 0)
        return;
    path[n] = 0;
    strcpy(strrchr(path, '/') + 1, "fault");
    FILE *file = fopen(path, "r");
    if (!file)
        return;
    if (fscanf(file, "%31s", word) != 1)
        word[0] = 0;
    fclose(file);
    if (!strcmp(word, "crash"))
        raise(SIGSEGV);
    if (!strcmp(word, "killed"))
        raise(SIGKILL);
    if (!strcmp(word, "hang"))
        for (;;)
            pause();
    if (!strcmp(word, "stopped"))
        raise(SIGSTOP);
    if (!strcmp(word, "slow"))
        usleep(300000);
    if (!strcmp(word, "silent"))
        exit(0);
}

int main(int argc, char **argv)
{
    const char *graph = option(argc, argv, "--graph"), *program = option(argc, argv, "--model_path");
    misbehave();
    if (*graph) {
        int runs = atoi(option(argc, argv, "--num_runs"));
        const char *files = option(argc, argv, "--input_layer_value_files");
        size_of(graph);
        /* From https://github.com/tensorflow/tensorflow/issues/42507, an Android phone, with the counts asked for. */
        printf("RECORDED ON ANOTHER DEVICE, not measured here\nSTARTING!\nLoaded model %s\n", graph);
        printf("Initialized session in 0.855ms.\n");
        printf("count=15 first=49060 curr=33682 min=32825 max=49060 avg=34825.1 std=3930\n\n");
        printf("count=%d first=32891 curr=33978 min=32641 max=34005 avg=33209.4 std=450\n\n", runs);
        printf("Inference timings in us: Init: 855, First inference: 49060, Warmup (avg): 34825.1, "
               "Inference (avg): 33209.4\n");
        if (*files)
            infer(graph, strchr(files, ':') + 1, option(argc, argv, "--output_filepath"));
        return 0;
    }
    if (*program) {
        int runs = atoi(option(argc, argv, "--num_executions"));
        const char *input = option(argc, argv, "--inputs"), *output = option(argc, argv, "--output_file");
        char path[4096];
        size_of(program);
        /* In the words of executor_runner.cpp; the times are made up and say so. */
        fprintf(stderr, "I 00:00:00.001000 executorch:executor_runner.cpp:150] MADE-UP TIMES, not measured\n");
        fprintf(stderr, "I 00:00:00.002000 executorch:executor_runner.cpp:624] Model loaded in 12.500000 ms.\n");
        for (int i = 1; i <= runs; i++)
            fprintf(stderr, "I 00:00:00.01%04d executorch:executor_runner.cpp:779] Iteration %d of %d: %d.250000 ms\n",
                    i, i, runs, 20 + i);
        fprintf(stderr, "I 00:00:01.000000 executorch:executor_runner.cpp:789] "
                        "Model executed successfully %d time(s) in %d.500000 ms.\n", runs, 21 * runs);
        if (*input) {
            snprintf(path, sizeof path, "%s-0.bin", output);
            infer(program, input, path);
        }
        return 0;
    }
    fprintf(stderr, "ERROR: neither --graph nor --model_path\n");
    return 1;
}
