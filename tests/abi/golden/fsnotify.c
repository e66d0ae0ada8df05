/*
 * Prints FSNOTIFY messages that farwatch has had no hand in, one a line, in hex.
 *
 * Headers are linux/fuse.h's, and a padded name, its length and its mask are what the
 * kernel's inotify handed out for a file of that name.  The structs are:
 *
 *   v1     as posted to linux-fsdevel on 25 October 2021, RFC PATCH 1/7 of "Inotify
 *          support in FUSE and virtiofs", <20211025204634.2517-2-iangelak@redhat.com>
 *   v2     as in github.com/iangelak/qemu, commit 4eb26aa702, branch inotify_aggr_watch
 *   v3     as there in branch fanotify, 87c7df2427
 *   far    as docs/protocol.md has them
 *
 * and v1 to v3 are filled in as the server of that branch does (lo_handle_events() of
 * tools/virtiofsd/passthrough_ll.c, fuse_lowlevel_notify_fsnotify() of fuse_lowlevel.c),
 * or the kernel of the posted patches (4/7, fuse_fsnotify_send_request()).
 *
 * Lines: "message NAME HEX", "sizeof STRUCT N", "offset STRUCT FIELD OFFSET SIZE".
 */
#include <fcntl.h>
#include <linux/fuse.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/uio.h>
#include <unistd.h>

/* fuse_init_in before the 7.36 that was given to INIT_EXT. */
struct v1_init { uint32_t major, minor, max_readahead, flags; };
struct v1_in { uint64_t mask, group; uint32_t action, padding; };
struct v1_out { uint64_t inode, mask; uint32_t namelen, cookie; };
struct v2_in { uint32_t mask, generation; };
struct v2_out { uint64_t inode, mask; uint32_t namelen, cookie, generation, padding; };
struct v3_in { uint64_t mask; };
struct v3_out {
    uint64_t inode, parent, mask;
    uint32_t namelen, generation;
    uint8_t notify_parent, padding[7];
};

struct far_begin_in { uint32_t version, mode, flags, padding; };
struct far_begin_out { uint32_t version, mode, supported, padding; uint64_t client; };
struct far_mark_in { uint64_t generation; uint32_t mask, flags; };
struct far_mark_out { uint32_t mask, padding; uint64_t sequence; };
struct far_take_in { uint32_t size, flags; };
struct far_event {
    uint64_t sequence;
    uint32_t mask, cookie;
    uint64_t node, parent, new_parent;
    uint32_t generation, parent_generation, new_parent_generation, origin;
    uint64_t client;
    uint16_t namelen, new_namelen;
    uint32_t padding;
};
struct far_ended { uint64_t sequence, node; uint32_t generation, reason; };

enum { FSNOTIFY_OPCODE = 51, FSNOTIFY_CODE = 8 };
enum { BEGIN = 0x46570001, MARK, TAKE, EVENT = 0x4657, ENDED };

enum { DIRECTORY = 0x1122334455667788, OTHER = 0x99, FILE_NODE = 0x0102030405060708 };
enum { GENERATION = 0x0a0b0c0d, FILE_GENERATION = 0xf0e0d0c0, COOKIE = 0xc00c1e5 };

static void print(const char *name, const struct iovec *iov, int count)
{
    printf("message %s ", name);
    for (int i = 0; i < count; i++)
        for (size_t j = 0; j < iov[i].iov_len; j++)
            printf("%02x", ((const unsigned char *)iov[i].iov_base)[j]);
    putchar('\n');
}

/* As fuse_send_msg() of libfuse and virtiofsd: the header's length is all of the vector's. */
static void notify(const char *name, int code, const void *out, size_t size,
                   const void *names, size_t namelen)
{
    struct fuse_out_header header = { .error = code, .unique = 0 };
    struct iovec iov[3] = {
        { &header, sizeof(header) }, { (void *)out, size }, { (void *)names, namelen },
    };
    header.len = sizeof(header) + size + namelen;
    print(name, iov, 3);
}

static void answer(const char *name, const void *out, size_t size)
{
    struct fuse_out_header header = { .len = sizeof(header) + size, .unique = 2 };
    struct iovec iov[2] = { { &header, sizeof(header) }, { (void *)out, size } };
    print(name, iov, 2);
}

static void request(const char *name, uint32_t opcode, uint64_t node, const void *in, size_t size)
{
    struct fuse_in_header header = {
        .len = sizeof(header) + size, .opcode = opcode, .unique = 2, .nodeid = node,
        .uid = 1000, .gid = 100, .pid = 4711,
    };
    struct iovec iov[2] = { { &header, sizeof(header) }, { (void *)in, size } };
    print(name, iov, 2);
}

/* What the kernel's inotify says of a file that is made under that name. */
static const struct inotify_event *made(const char *name, char *buffer, size_t size)
{
    char directory[] = "/tmp/farwatch-golden-XXXXXX", path[512];
    int watcher = inotify_init1(IN_NONBLOCK | IN_CLOEXEC), file;

    if (watcher < 0 || !mkdtemp(directory))
        exit(2);
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    if (inotify_add_watch(watcher, directory, IN_CREATE) < 0)
        exit(2);
    file = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (file < 0 || read(watcher, buffer, size) <= 0)
        exit(2);
    close(file);
    unlink(path);
    rmdir(directory);
    close(watcher);
    return (const struct inotify_event *)buffer;
}

static void v1_event(const char *label, uint64_t node, uint64_t mask, uint32_t cookie,
                     const struct inotify_event *event)
{
    uint32_t length = event ? event->len : 0;
    struct v1_out out = { node, mask, length, cookie };
    notify(label, FSNOTIFY_CODE, &out, sizeof(out), event ? event->name : "", length);
}

static void v2_event(const char *label, uint64_t node, uint64_t mask, uint32_t cookie,
                     uint32_t generation, const struct inotify_event *event)
{
    uint32_t length = event ? event->len : 0;
    struct v2_out out = { node, mask, length, cookie, generation, 0 };
    notify(label, FSNOTIFY_CODE, &out, sizeof(out), event ? event->name : "", length);
}

static void v3_event(const char *label, uint64_t node, uint64_t parent, uint64_t mask,
                     uint32_t generation, int notify_parent, const char *name)
{
    uint32_t length = strlen(name);
    struct v3_out out = { node, parent, mask, length, generation, notify_parent, { 0 } };
    notify(label, FSNOTIFY_CODE, &out, sizeof(out), name, length);
}

static void inits(void)
{
    struct v1_init one = { 7, 36, 131072, 1u << 30 };
    struct fuse_init_in three = { .major = 7, .minor = 38, .max_readahead = 131072 };
    struct fuse_init_in far = three;

    three.flags = far.flags = FUSE_INIT_EXT;
    three.flags2 = (1ULL << 34) >> 32;
    far.minor = 45;
    far.flags2 = (1ULL << 61) >> 32;
    request("v1.init", FUSE_INIT, 0, &one, sizeof(one));
    request("v3.init", FUSE_INIT, 0, &three, sizeof(three));
    request("far.init", FUSE_INIT, 0, &far, sizeof(far));
}

static void posted(void)
{
    char buffer[1024], of15[16], of16[17], of255[256];
    struct v1_in one = { IN_CREATE | IN_DELETE, 0xffff888012345678, 1, 0 };
    struct v2_in two = { IN_MODIFY | IN_ATTRIB, GENERATION };
    struct v3_in three = { IN_MODIFY | IN_CLOSE_WRITE };
    const struct { const char *v1, *v2, *name; } names[] = {
        { "v1.create.1", "v2.create.1", "x" },
        { "v1.create.15", "v2.create.15", memset(of15, 'f', 15) },
        { "v1.create.16", "v2.create.16", memset(of16, 's', 16) },
        { "v1.create.255", "v2.create.255", memset(of255, 'l', 255) },
    };

    of15[15] = of16[16] = of255[255] = 0;
    request("v1.add", FSNOTIFY_OPCODE, DIRECTORY, &one, sizeof(one));
    one.action = 0;
    request("v1.remove", FSNOTIFY_OPCODE, DIRECTORY, &one, sizeof(one));
    request("v2.add", FSNOTIFY_OPCODE, DIRECTORY, &two, sizeof(two));
    two.mask = 0;
    request("v2.remove", FSNOTIFY_OPCODE, DIRECTORY, &two, sizeof(two));
    request("v3.add", FSNOTIFY_OPCODE, DIRECTORY, &three, sizeof(three));
    three.mask = 0;
    request("v3.remove", FSNOTIFY_OPCODE, DIRECTORY, &three, sizeof(three));
    for (int i = 0; i < 4; i++) {
        const struct inotify_event *event = made(names[i].name, buffer, sizeof(buffer));
        v1_event(names[i].v1, DIRECTORY, event->mask, event->cookie, event);
        v2_event(names[i].v2, DIRECTORY, event->mask, event->cookie, GENERATION, event);
    }
    v1_event("v1.moved", DIRECTORY, IN_MOVED_FROM | IN_ISDIR, COOKIE,
             made("old", buffer, sizeof(buffer)));
    v2_event("v2.moved", DIRECTORY, IN_MOVED_FROM | IN_ISDIR, COOKIE, GENERATION,
             made("old", buffer, sizeof(buffer)));
    v1_event("v1.self", FILE_NODE, IN_DELETE_SELF, 0, NULL);
    v2_event("v2.self", FILE_NODE, IN_DELETE_SELF, 0, FILE_GENERATION, NULL);
    v3_event("v3.create", DIRECTORY, 0, FAN_CREATE, GENERATION, 0, "x");
    v3_event("v3.moved", DIRECTORY, 0, FAN_MOVED_TO | FAN_ONDIR, GENERATION, 0, of255);
    v3_event("v3.child", FILE_NODE, DIRECTORY, FAN_MODIFY | FAN_EVENT_ON_CHILD,
             FILE_GENERATION, 1, of16);
    v3_event("v3.unknown-child", DIRECTORY, 0, FAN_MODIFY, GENERATION, 0, "x");
    v3_event("v3.self", FILE_NODE, 0, FAN_DELETE_SELF, FILE_GENERATION, 0, "");
}

static void current(void)
{
    struct far_begin_in begin = { 1, 2, 0, 0 };
    struct far_begin_out begun = { 1, 2, 0xfff, 0, 0x1000000002 };
    struct far_mark_in mark = { GENERATION, IN_CREATE | IN_MODIFY, 0 };
    struct far_mark_out marked = { IN_CREATE, 0, 0x123456789abcdef0 };
    struct far_take_in take = { 65536, 0 };
    struct far_event modify = {
        7, IN_MODIFY, 0, FILE_NODE, DIRECTORY, 0, FILE_GENERATION, GENERATION, 0, 2,
        0x1000000003, 1, 0, 0,
    };
    struct far_event renamed = {
        8, FAN_RENAME | FAN_ONDIR, 0, FILE_NODE, DIRECTORY, OTHER,
        FILE_GENERATION, GENERATION, 0x55, 1, 4, 3, 255, 0,
    };
    struct far_event overflow = { .sequence = 9, .mask = IN_Q_OVERFLOW };
    struct far_ended ended = { 10, FILE_NODE, FILE_GENERATION, 2 };
    char names[3 + 255];

    memcpy(names, "old", 3);
    memset(names + 3, 'n', 255);
    request("far.begin", BEGIN, FUSE_ROOT_ID, &begin, sizeof(begin));
    answer("far.begun", &begun, sizeof(begun));
    request("far.mark", MARK, DIRECTORY, &mark, sizeof(mark));
    answer("far.marked", &marked, sizeof(marked));
    mark = (struct far_mark_in){ FILE_GENERATION, 0, 1 };
    request("far.limbo", MARK, FILE_NODE, &mark, sizeof(mark));
    request("far.take", TAKE, FUSE_ROOT_ID, &take, sizeof(take));
    notify("far.modify", EVENT, &modify, sizeof(modify), "x", 1);
    notify("far.renamed", EVENT, &renamed, sizeof(renamed), names, sizeof(names));
    notify("far.overflow", EVENT, &overflow, sizeof(overflow), "", 0);
    notify("far.ended", ENDED, &ended, sizeof(ended), "", 0);
}

#define STRUCT(s) printf("sizeof " #s " %zu\n", sizeof(struct s))
#define FIELD(s, f) \
    printf("offset " #s " " #f " %zu %zu\n", offsetof(struct s, f), sizeof(((struct s *)0)->f))

static void layouts(void)
{
    STRUCT(v1_in); FIELD(v1_in, mask); FIELD(v1_in, group); FIELD(v1_in, action);
    FIELD(v1_in, padding);
    STRUCT(v1_out); FIELD(v1_out, inode); FIELD(v1_out, mask); FIELD(v1_out, namelen);
    FIELD(v1_out, cookie);
    STRUCT(v2_in); FIELD(v2_in, mask); FIELD(v2_in, generation);
    STRUCT(v2_out); FIELD(v2_out, inode); FIELD(v2_out, mask); FIELD(v2_out, namelen);
    FIELD(v2_out, cookie); FIELD(v2_out, generation); FIELD(v2_out, padding);
    STRUCT(v3_in); FIELD(v3_in, mask);
    STRUCT(v3_out); FIELD(v3_out, inode); FIELD(v3_out, parent); FIELD(v3_out, mask);
    FIELD(v3_out, namelen); FIELD(v3_out, generation); FIELD(v3_out, notify_parent);
    FIELD(v3_out, padding);
    STRUCT(far_begin_in); FIELD(far_begin_in, version); FIELD(far_begin_in, mode);
    FIELD(far_begin_in, flags); FIELD(far_begin_in, padding);
    STRUCT(far_begin_out); FIELD(far_begin_out, version); FIELD(far_begin_out, mode);
    FIELD(far_begin_out, supported); FIELD(far_begin_out, padding);
    FIELD(far_begin_out, client);
    STRUCT(far_mark_in); FIELD(far_mark_in, generation); FIELD(far_mark_in, mask);
    FIELD(far_mark_in, flags);
    STRUCT(far_mark_out); FIELD(far_mark_out, mask); FIELD(far_mark_out, padding);
    FIELD(far_mark_out, sequence);
    STRUCT(far_take_in); FIELD(far_take_in, size); FIELD(far_take_in, flags);
    STRUCT(far_event); FIELD(far_event, sequence); FIELD(far_event, mask);
    FIELD(far_event, cookie); FIELD(far_event, node); FIELD(far_event, parent);
    FIELD(far_event, new_parent); FIELD(far_event, generation);
    FIELD(far_event, parent_generation); FIELD(far_event, new_parent_generation);
    FIELD(far_event, origin); FIELD(far_event, client); FIELD(far_event, namelen);
    FIELD(far_event, new_namelen); FIELD(far_event, padding);
    STRUCT(far_ended); FIELD(far_ended, sequence); FIELD(far_ended, node);
    FIELD(far_ended, generation); FIELD(far_ended, reason);
}

int main(void)
{
    layouts();
    inits();
    posted();
    current();
    return 0;
}
