/* A plugin of QEMU's user mode emulation: a guest's marks in, the instructions that it executed until each mark out.
 *
 * A mark is the system call sched_get_priority_max() with MARK as its argument, which no program asks for and the kernel
 * refuses without effect. Each one becomes a line "mark <instructions> <virtual processors>" of QEMU's log. Counts are
 * kept by blocks of translated code, without a lock: they are exact as long as the guest has one thread, which the
 * second number tells.
 *
 * The few functions of QEMU's plugin interface, version 1 (docs/devel/tcg-plugins), are declared here, so that neither
 * its header nor a C library is needed.
 */

typedef unsigned long long u64;
typedef long long s64;
typedef u64 plugin_id;
struct tb;

#define EXPORT __attribute__((visibility("default")))
#define INLINE_ADD_U64 0

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct tb *, int, void *, u64);
void qemu_plugin_register_vcpu_init_cb(plugin_id, void (*)(plugin_id, unsigned int));
void qemu_plugin_register_vcpu_syscall_cb(
    plugin_id, void (*)(plugin_id, unsigned int, s64, u64, u64, u64, u64, u64, u64, u64, u64));
unsigned long qemu_plugin_tb_n_insns(const struct tb *);
void qemu_plugin_outs(const char *);

EXPORT int qemu_plugin_version = 1;

static const s64 SCHED_GET_PRIORITY_MAX = 125; /* asm-generic/unistd.h, which aarch64 follows */
static const unsigned int MARK = 0x65327432;   /* targets.devices.arm64.counted */

static u64 executed;
static u64 processors;

static void on_translation(plugin_id id, struct tb *tb)
{
    qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD_U64, &executed, qemu_plugin_tb_n_insns(tb));
}

static void on_processor(plugin_id id, unsigned int index)
{
    processors++;
}

static char *append(char *to, const char *text)
{
    while (*text)
        *to++ = *text++;
    return to;
}

static char *append_number(char *to, u64 number)
{
    char digits[20];
    int n = 0;
    do {
        digits[n++] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    while (n)
        *to++ = digits[--n];
    return to;
}

static void on_syscall(plugin_id id, unsigned int index, s64 number, u64 a1, u64 a2, u64 a3, u64 a4, u64 a5, u64 a6,
                       u64 a7, u64 a8)
{
    char line[64], *end = line;
    if (number != SCHED_GET_PRIORITY_MAX || (unsigned int)a1 != MARK)
        return;
    end = append(end, "mark ");
    end = append_number(end, executed);
    end = append(end, " ");
    end = append_number(end, processors);
    end = append(end, "\n");
    *end = 0;
    qemu_plugin_outs(line);
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    qemu_plugin_register_vcpu_init_cb(id, on_processor);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    return 0;
}
