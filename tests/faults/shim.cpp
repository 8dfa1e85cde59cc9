// Faults of a disk, a process and a clock, for tests: a library that LD_PRELOAD puts before glibc.
//
// Nothing happens until `faults_arm` (or the variable DEWEY_FAULTS, for a new program) says what
// and where, as key=value pairs with semicolons between:
//   root    the folder whose files are meant
//   report  a file of counts, which outlives the process
//   on      the calls that count: r(ead) w(rite) s(ync) n(ame: create, rename, link, remove)
//   at      the call, from 1 on, at which it happens; with last=1 at every later one, too
//   do      kill, term, int (a signal), errno:N (the call fails), short (it writes half)
//   quota   bytes that may be written before the disk is full
//   clock   seconds by which the time of day is wrong, from its call number `jump` on
//   log     a file that receives what is written, flushed, renamed and removed
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <string>

namespace {

enum Kind { READ, WRITE, SYNC, NAME, CLOCK, KINDS };

struct Report {
  std::atomic<int64_t> calls[KINDS], bytes, matched, happened;
};

struct Plan {
  std::string root, action;
  bool on[KINDS] = {};
  bool last = false;
  int64_t at = 0, quota = -1, clock = 0, jump = 0;
  int log = -1;
};

Report nowhere, *report = &nowhere;
Plan *plan = nullptr;

template <class Function>
Function real(const char *name, Function &kept) {
  if (!kept) kept = reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
  return kept;
}
#define REAL(name)                     \
  static decltype(&name) kept_##name; \
  auto theirs = real(#name, kept_##name)

std::string place(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path);
  return length > 0 ? std::string(path, length) : "";
}

std::string place(int folder, const char *path) {
  if (!path) return "";
  if (path[0] == '/') return path;
  char here[4096];
  std::string base = folder == AT_FDCWD ? (getcwd(here, sizeof here) ? here : "") : place(folder);
  return base + "/" + path;
}

bool meant(const std::string &path) {
  return plan && !plan->root.empty() && path.compare(0, plan->root.size(), plan->root) == 0;
}

void note(char what, const std::string &path) {
  if (plan->log < 0) return;
  std::string line = std::string(1, what) + path + "\n";
  syscall(SYS_write, plan->log, line.data(), line.size());
}

// The error with which a call must fail, 0 where it goes on, -1 where it does half of its work.
int happens(Kind kind) {
  report->calls[kind]++;
  if (!plan->on[kind] || !plan->at) return 0;
  int64_t number = ++report->matched;
  if (number < plan->at || (number > plan->at && !plan->last)) return 0;
  report->happened = 1;
  if (plan->action == "kill") syscall(SYS_kill, getpid(), SIGKILL);
  if (plan->action == "term") syscall(SYS_kill, getpid(), SIGTERM);
  if (plan->action == "int") syscall(SYS_kill, getpid(), SIGINT);
  if (plan->action == "short") return -1;
  return plan->action.compare(0, 6, "errno:") == 0 ? atoi(plan->action.c_str() + 6) : 0;
}

bool refused(Kind kind) {
  int error = happens(kind);
  if (error > 0) errno = error;
  return error > 0;
}

// How many of `size` bytes may be written; -1 with errno where none may.
ssize_t allowed(int fd, size_t size) {
  std::string path = place(fd);
  if (!meant(path)) return size;
  note('w', path);
  int error = happens(WRITE);
  if (error > 0) {
    errno = error;
    return -1;
  }
  if (error < 0 && size > 1) size = size / 2 + 1;
  int64_t before = report->bytes.fetch_add(size);
  if (plan->quota < 0 || before + static_cast<int64_t>(size) <= plan->quota) return size;
  report->happened = 1;
  report->bytes -= size;
  int64_t rest = plan->quota - before;
  if (rest > 0) {
    report->bytes += rest;
    return rest;
  }
  errno = ENOSPC;
  return -1;
}

// Room on a disk is given as a whole: what has no quota takes no part of it for a full disk.
ssize_t whole(ssize_t size) { return plan && plan->quota >= 0 ? size : 0; }

bool read_refused(int fd) { return meant(place(fd)) && refused(READ); }

void now(timespec *time, clockid_t clock) {
  if (!plan || clock != CLOCK_REALTIME || !time) return;
  if (++report->calls[CLOCK] < plan->jump || !plan->clock) return;
  report->happened = 1;
  time->tv_sec += plan->clock;
}

int opened(int folder, const char *path, int flags) {
  std::string full = plan ? place(folder, path) : "";
  if (!meant(full)) return 0;
  bool writes = (flags & O_ACCMODE) != O_RDONLY;
  if (writes) note('o', full);
  return refused((flags & O_CREAT) && access(full.c_str(), F_OK) ? NAME : READ) ? -1 : 0;
}

bool name_refused(char what, const std::string &path, const std::string &other = "") {
  if (!meant(path) && !meant(other)) return false;
  if (refused(NAME)) return true;
  note(what, other.empty() ? path : path + "\t" + other);
  return false;
}

}  // namespace

extern "C" {

void faults_arm(const char *text) {
  Plan *made = new Plan;
  std::string rest = text;
  while (!rest.empty()) {
    size_t end = rest.find(';');
    std::string pair = rest.substr(0, end);
    rest = end == std::string::npos ? "" : rest.substr(end + 1);
    size_t middle = pair.find('=');
    std::string key = pair.substr(0, middle), value = pair.substr(middle + 1);
    if (key == "root") made->root = value;
    if (key == "do") made->action = value;
    if (key == "on")
      for (char each : value) made->on[std::string("rwsn").find(each)] = true;
    if (key == "last") made->last = value == "1";
    if (key == "at") made->at = atoll(value.c_str());
    if (key == "quota") made->quota = atoll(value.c_str());
    if (key == "clock") made->clock = atoll(value.c_str());
    if (key == "jump") made->jump = atoll(value.c_str());
    if (key == "log") made->log = open(value.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (key == "report") {
      int fd = open(value.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
      if (fd >= 0 && ftruncate(fd, sizeof(Report)) == 0)
        report = static_cast<Report *>(
            mmap(nullptr, sizeof(Report), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
      close(fd);
    }
  }
  plan = made;
}

__attribute__((constructor)) static void begin() {
  if (const char *text = getenv("DEWEY_FAULTS")) faults_arm(text);
}

#define OPENS(name)                                        \
  int name(const char *path, int flags, ...) {             \
    REAL(name);                                            \
    va_list rest;                                          \
    va_start(rest, flags);                                 \
    mode_t mode = va_arg(rest, mode_t);                    \
    va_end(rest);                                          \
    return opened(AT_FDCWD, path, flags) ? -1 : theirs(path, flags, mode); \
  }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name)                                     \
  int name(int folder, const char *path, int flags, ...) { \
    REAL(name);                                            \
    va_list rest;                                          \
    va_start(rest, flags);                                 \
    mode_t mode = va_arg(rest, mode_t);                    \
    va_end(rest);                                          \
    return opened(folder, path, flags) ? -1 : theirs(folder, path, flags, mode); \
  }
OPENS_AT(openat)
OPENS_AT(openat64)

ssize_t read(int fd, void *data, size_t size) {
  REAL(read);
  return read_refused(fd) ? -1 : theirs(fd, data, size);
}
ssize_t pread(int fd, void *data, size_t size, off_t at) {
  REAL(pread);
  return read_refused(fd) ? -1 : theirs(fd, data, size, at);
}
ssize_t pread64(int fd, void *data, size_t size, off64_t at) {
  REAL(pread64);
  return read_refused(fd) ? -1 : theirs(fd, data, size, at);
}
size_t fread(void *data, size_t size, size_t count, FILE *file) {
  REAL(fread);
  return read_refused(fileno(file)) ? 0 : theirs(data, size, count, file);
}
ssize_t write(int fd, const void *data, size_t size) {
  REAL(write);
  ssize_t part = allowed(fd, size);
  return part < 0 ? -1 : theirs(fd, data, part);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
  REAL(pwrite);
  ssize_t part = allowed(fd, size);
  return part < 0 ? -1 : theirs(fd, data, part, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
  REAL(pwrite64);
  ssize_t part = allowed(fd, size);
  return part < 0 ? -1 : theirs(fd, data, part, at);
}
ssize_t writev(int fd, const iovec *parts, int count) {
  REAL(writev);
  size_t size = 0;
  for (int each = 0; each < count; each++) size += parts[each].iov_len;
  ssize_t part = allowed(fd, size);
  if (part < 0 || static_cast<size_t>(part) == size) return part < 0 ? -1 : theirs(fd, parts, count);
  return theirs(fd, parts, 1);  // the first of them, as a short write may
}
size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
  REAL(fwrite);
  size_t wanted = size * count;
  ssize_t part = allowed(fileno(file), wanted);
  if (part < 0) return 0;
  // A short write of the buffered kind is an error; half of it was none of ours to report.
  return static_cast<size_t>(part) < wanted && plan->quota >= 0
             ? theirs(data, 1, part, file) / (size ? size : 1)
             : theirs(data, size, count, file);
}
int posix_fallocate(int fd, off_t at, off_t size) {
  REAL(posix_fallocate);
  return allowed(fd, size) < whole(size) ? ENOSPC : theirs(fd, at, size);
}
int posix_fallocate64(int fd, off64_t at, off64_t size) {
  REAL(posix_fallocate64);
  return allowed(fd, size) < whole(size) ? ENOSPC : theirs(fd, at, size);
}
ssize_t copy_file_range(int from, off64_t *start, int to, off64_t *end, size_t size, unsigned flags) {
  REAL(copy_file_range);
  ssize_t part = allowed(to, size > (1 << 20) ? (1 << 20) : size);
  return part < 0 ? -1 : theirs(from, start, to, end, part, flags);
}

#define SYNCS(name)                                                 \
  int name(int fd) {                                                \
    REAL(name);                                                     \
    std::string path = plan ? place(fd) : "";                       \
    if (!meant(path)) return theirs(fd);                            \
    if (refused(SYNC)) return -1;                                   \
    note('s', path);                                                \
    return theirs(fd);                                              \
  }
SYNCS(fsync)
SYNCS(fdatasync)

int rename(const char *from, const char *to) {
  REAL(rename);
  if (plan && name_refused('r', place(AT_FDCWD, from), place(AT_FDCWD, to))) return -1;
  return theirs(from, to);
}
int renameat(int one, const char *from, int other, const char *to) {
  REAL(renameat);
  if (plan && name_refused('r', place(one, from), place(other, to))) return -1;
  return theirs(one, from, other, to);
}
int link(const char *from, const char *to) {
  REAL(link);
  if (plan && name_refused('l', place(AT_FDCWD, from), place(AT_FDCWD, to))) return -1;
  return theirs(from, to);
}
int linkat(int one, const char *from, int other, const char *to, int flags) {
  REAL(linkat);
  if (plan && name_refused('l', place(one, from), place(other, to))) return -1;
  return theirs(one, from, other, to, flags);
}
int unlink(const char *path) {
  REAL(unlink);
  return plan && name_refused('u', place(AT_FDCWD, path)) ? -1 : theirs(path);
}
int unlinkat(int folder, const char *path, int flags) {
  REAL(unlinkat);
  return plan && name_refused('u', place(folder, path)) ? -1 : theirs(folder, path, flags);
}
int mkdir(const char *path, mode_t mode) {
  REAL(mkdir);
  return plan && name_refused('m', place(AT_FDCWD, path)) ? -1 : theirs(path, mode);
}
int rmdir(const char *path) {
  REAL(rmdir);
  return plan && name_refused('u', place(AT_FDCWD, path)) ? -1 : theirs(path);
}

int clock_gettime(clockid_t clock, timespec *time) noexcept {
  REAL(clock_gettime);
  int result = theirs(clock, time);
  now(time, clock);
  return result;
}
int gettimeofday(timeval *time, void *zone) noexcept {
  REAL(gettimeofday);
  int result = theirs(time, zone);
  timespec shifted = {time->tv_sec, 0};
  now(&shifted, CLOCK_REALTIME);
  time->tv_sec = shifted.tv_sec;
  return result;
}
time_t time(time_t *kept) noexcept {
  timespec shifted;
  clock_gettime(CLOCK_REALTIME, &shifted);
  if (kept) *kept = shifted.tv_sec;
  return shifted.tv_sec;
}

}  // extern "C"
