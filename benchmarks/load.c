/* The load generator: many WebSocket clients in one thread, on plain epoll.
 *
 * It is told what to do by KEY=VALUE arguments (see `options` below) and goes through phases, each
 * announced by a line of JSON on stdout, so that whoever measures the server can look at it in time:
 *
 *     dial and say hello, join or subscribe  ->  "ready", then it waits for a line on stdin
 *     begin, warm up                         ->  "begin"
 *     for the measured window                ->  "end", with all figures
 *
 * A *sender* has a number of destinations, which it takes in turn, and at most `window` messages
 * under way. A message is settled when each of its receivers has got it and, with `acks=1`, its
 * sender has got the `ok`; then the sender's next goes out. With `rate=N` messages go out by the
 * clock instead, N a second from all senders together.
 *
 * The text of a message is its sender, its number and the time at which it was written, in
 * hexadecimal digits, so a receiver knows its latency without a table. What is written to a
 * connection while a batch of events is handled goes out in one `send` at the end of it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* --- what can be asked for --- */

static struct {
    const char *mode;  /* exchange, connect or resume */
    const char *shape; /* pairs, fanout, groups or alone */
    long port;
    const char *dialect; /* chat: ours; relay: named by the URL; mqtt: 3.1.1, QoS 0 */
    long hello;      /* whether a connection says hello before it counts as ready */
    long acks;       /* whether an `ok` belongs to a settled message */
    long signal;     /* of shape pairs: signals, where the dialect has them */
    long pairs;      /* of shape pairs */
    long senders;    /* of shape fanout: each has a topic of its own, */
    long receivers;  /* with so many subscribers */
    long stuck;      /* of which so many, of the first topic, stop reading */
    long groups;     /* of shape groups: 20 for each of so many strides */
    long bystanders; /* connections that say hello and are silent */
    long window;     /* messages under way for each sender */
    long rate;       /* or messages a second from all together */
    long text;       /* bytes of a message's text */
    long messages;   /* stop after so many from each sender instead of after a time */
    long warmup, measured; /* milliseconds */
    long dial;       /* connections that are being made at the same time */
} o = {.mode = "exchange", .shape = "pairs", .dialect = "chat", .hello = 1, .acks = 1, .pairs = 1,
       .senders = 1, .receivers = 1, .groups = 10, .window = 1, .text = 40, .measured = 1000, .dial = 40};

static const struct {
    const char *key;
    long *number;
    const char **word;
} options[] = {
    {"mode", NULL, &o.mode},
    {"shape", NULL, &o.shape},
    {"port", &o.port, NULL},
    {"dialect", NULL, &o.dialect},
    {"hello", &o.hello, NULL},
    {"acks", &o.acks, NULL},
    {"signal", &o.signal, NULL},
    {"pairs", &o.pairs, NULL},
    {"senders", &o.senders, NULL},
    {"receivers", &o.receivers, NULL},
    {"stuck", &o.stuck, NULL},
    {"groups", &o.groups, NULL},
    {"bystanders", &o.bystanders, NULL},
    {"window", &o.window, NULL},
    {"rate", &o.rate, NULL},
    {"text", &o.text, NULL},
    {"messages", &o.messages, NULL},
    {"warmup", &o.warmup, NULL},
    {"measured", &o.measured, NULL},
    {"dial", &o.dial, NULL},
};

static enum { CHAT, RELAY, MQTT } dialect;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static void *grown(void *old, size_t size) {
    void *new = realloc(old, size);
    if (new == NULL && size != 0) fail("out of memory");
    return new;
}

static void *zeroed(size_t count, size_t size) {
    void *new = calloc(count ? count : 1, size);
    if (new == NULL) fail("out of memory");
    return new;
}

static uint64_t now(void) {
    static time_t epoch;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    if (epoch == 0) epoch = t.tv_sec;
    return (uint64_t)(t.tv_sec - epoch) * 1000000000u + (uint64_t)t.tv_nsec;
}

/* --- latencies: 64 steps to an octave, so within 1.6 % --- */

#define STEPS 64
#define BUCKETS (STEPS * 48)
static uint64_t histogram[BUCKETS], histogram_total, histogram_max;

static void note_latency(uint64_t ns) {
    unsigned octave = 0;
    if (ns > histogram_max) histogram_max = ns;
    while ((ns >> octave) >= 2 * STEPS) octave++;
    unsigned bucket = octave == 0 ? (unsigned)ns : octave * STEPS + (unsigned)(ns >> octave);
    histogram[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    histogram_total++;
}

static double percentile(double share) {
    uint64_t wanted = (uint64_t)(share * (double)histogram_total), seen = 0;
    for (unsigned bucket = 0; bucket < BUCKETS; bucket++) {
        seen += histogram[bucket];
        if (seen > wanted) {
            unsigned octave = bucket < 2 * STEPS ? 0 : bucket / STEPS - 1;
            uint64_t low = octave == 0 ? bucket : (uint64_t)(bucket - octave * STEPS) << octave;
            return (double)(low + (octave ? 1u << (octave - 1) : 0)) / 1000.0;
        }
    }
    return (double)histogram_max / 1000.0;
}

/* --- who is there, and who sends what to whom --- */

enum stage { AWAY, DIALLING, SHAKING, GREETING, JOINING, READY };

struct connection {
    int fd;
    enum stage stage;
    bool dirty, awaits_room, stuck;
    uint32_t user;             /* its name is u and this number */
    uint32_t *joins;           /* groups or topics */
    uint32_t joined, joins_count;
    uint32_t heard, heard_from; /* the last message, for the check of order */
    uint64_t since;            /* when it was dialled, or said hello */
    char *left;                /* an unfinished frame */
    size_t left_size, left_room;
    char *out;
    size_t out_size, out_room, out_sent;
};

struct destination {
    char address[32]; /* as in a frame: "to":"u7" */
    uint32_t room;
    uint32_t receivers;
};

struct sender {
    struct connection *connection;
    struct destination *destinations;
    uint32_t destinations_count;
    uint32_t number;    /* of the next message */
    uint32_t *missing;  /* what is missing before a message is settled, by number */
    uint32_t places;    /* of `missing`, a power of two */
};

static struct connection *connections;
static uint32_t connections_count;
static struct sender *senders;
static uint32_t senders_count;
static const char *room = "topic"; /* or "group" */

static void join_later(struct connection *c, uint32_t which) {
    c->joins = grown(c->joins, (c->joins_count + 1) * sizeof *c->joins);
    c->joins[c->joins_count++] = which;
}

static void populate(uint32_t count, uint32_t sending) {
    connections_count = count + (uint32_t)o.bystanders;
    connections = zeroed(connections_count, sizeof *connections);
    for (uint32_t i = 0; i < connections_count; i++) {
        connections[i].fd = -1;
        connections[i].user = i;
        connections[i].heard_from = UINT32_MAX;
    }
    uint32_t places = 1;
    while (places < (o.rate ? 65536 : (uint32_t)o.window)) places *= 2;
    senders_count = sending;
    senders = zeroed(sending, sizeof *senders);
    for (uint32_t i = 0; i < sending; i++) {
        senders[i].connection = &connections[i];
        senders[i].places = places;
        senders[i].missing = zeroed(places, sizeof *senders[i].missing);
    }
}

static struct destination *reaches(struct sender *s, uint32_t receivers) {
    uint32_t count = ++s->destinations_count;
    s->destinations = grown(s->destinations, count * sizeof *s->destinations);
    s->destinations[count - 1].receivers = receivers;
    return &s->destinations[count - 1];
}

static void reaches_user(struct sender *s, uint32_t user, uint32_t receivers) {
    struct destination *d = reaches(s, receivers);
    snprintf(d->address, sizeof d->address, "\"to\":\"u%u\"", user);
}

static void reaches_room(struct sender *s, uint32_t which, uint32_t receivers) {
    struct destination *d = reaches(s, receivers);
    d->room = which;
    snprintf(d->address, sizeof d->address, "\"%s\":\"t%u\"", room, which);
}

static bool signals(void) {
    return o.signal && dialect == CHAT;
}

/* Sender i writes to receiver i. Signals are for who is acquainted: the two are in one group. */
static void shape_pairs(void) {
    uint32_t n = (uint32_t)o.pairs;
    populate(2 * n, n);
    if (signals()) room = "group";
    for (uint32_t i = 0; i < n; i++) {
        reaches_user(&senders[i], n + i, 1);
        if (!signals()) continue;
        join_later(&connections[i], i);
        join_later(&connections[n + i], i);
    }
}

/* Each sender has a topic with subscribers of its own. */
static void shape_fanout(void) {
    uint32_t s = (uint32_t)o.senders, r = (uint32_t)o.receivers;
    populate(s + s * r, s);
    for (uint32_t i = 0; i < s; i++) {
        uint32_t deaf = i == 0 ? (uint32_t)o.stuck : 0;
        reaches_room(&senders[i], i, r - deaf);
        for (uint32_t j = 0; j < r; j++) {
            struct connection *c = &connections[s + i * r + j];
            join_later(c, i);
            c->stuck = j < deaf;
        }
    }
}

/* Groups of 50 among 1,000 users. Each user is in one group of each stride: group (a, stride) has
 * the users 50a + j * stride. The 20 users with j = 0 send, each to its own groups in turn. A relay
 * sends to all who subscribed, the sender too, so there the senders do not. */
static void shape_groups(void) {
    static const uint32_t strides[] = {1, 3, 7, 9, 11, 13, 17, 19, 21, 23};
    const uint32_t users = 1000, members = 50, sending = users / members;
    if ((size_t)o.groups > sizeof strides / sizeof *strides) fail("groups=%ld", o.groups);
    room = dialect == CHAT ? "group" : "topic";
    populate(users, sending);
    for (uint32_t k = 0; k < (uint32_t)o.groups; k++) {
        for (uint32_t a = 0; a < sending; a++) {
            uint32_t group = k * sending + a;
            reaches_room(&senders[a], group, members - 1);
            for (uint32_t j = 0; j < members; j++) {
                uint32_t user = (50 * a + j * strides[k]) % users;
                /* The senders are the first connections. */
                bool sends = user % 50 == 0;
                uint32_t place = sends ? user / 50 : sending + user - user / 50 - 1;
                if (dialect == CHAT || j != 0) join_later(&connections[place], group);
            }
        }
    }
}

/* Nobody says anything; or, to be resumed, one to all the others, who are not there. */
static void shape_alone(void) {
    bool resumed = strcmp(o.mode, "resume") == 0;
    populate(resumed ? 1 : 0, resumed ? 1 : 0);
    for (uint32_t i = 1; resumed && i < connections_count; i++) reaches_user(&senders[0], i, 0);
}

static void make_shape(void) {
    static const struct {
        const char *name;
        void (*make)(void);
    } shapes[] = {{"pairs", shape_pairs},
                  {"fanout", shape_fanout},
                  {"groups", shape_groups},
                  {"alone", shape_alone}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (strcmp(o.shape, shapes[i].name) == 0) {
            shapes[i].make();
            return;
        }
    fail("shape=%s", o.shape);
}

/* --- what is counted --- */

static struct {
    uint64_t sent, unsent, deliveries, acks, opened, errors, lagging, disorder, bytes_in;
} n;
static char first_error[200];
static bool measuring, sending, timing_messages;
static uint64_t settled, total_to_settle;
static uint32_t ready_count, dialled, dialling;

static void error(const char *format, ...) {
    va_list arguments;
    if (n.errors++ != 0) return;
    va_start(arguments, format);
    vsnprintf(first_error, sizeof first_error, format, arguments);
    va_end(arguments);
    for (char *c = first_error; *c; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < 32) *c = '\'';
}

/* --- writing --- */

static int poller;
static struct connection **dirty;
static uint32_t dirty_count;
static const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};

static void watch(struct connection *c, int how, bool room_too) {
    struct epoll_event event = {.data.ptr = c};
    event.events = EPOLLET | EPOLLIN | EPOLLRDHUP | (room_too ? EPOLLOUT : 0);
    if (epoll_ctl(poller, how, c->fd, &event) != 0) fail("epoll_ctl: %s", strerror(errno));
    c->awaits_room = room_too;
}

static void hang_up(struct connection *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    c->stage = AWAY;
}

static void flush_later(struct connection *c) {
    if (c->dirty) return;
    c->dirty = true;
    dirty[dirty_count++] = c;
}

/* Room for `size` more bytes to be sent at the end of this batch. */
static char *outgoing(struct connection *c, size_t size) {
    flush_later(c);
    if (c->out_size + size > c->out_room) {
        c->out_room = 2 * (c->out_size + size) + 256;
        c->out = grown(c->out, c->out_room);
    }
    c->out_size += size;
    return c->out + c->out_size - size;
}

static void put_frame(struct connection *c, unsigned char first, const char *payload, size_t size) {
    size_t head = size < 126 ? 2 : 4;
    unsigned char *p = (unsigned char *)outgoing(c, head + 4 + size);
    if (size > 65535) fail("a frame of %zu bytes", size);
    *p++ = first;
    if (head == 2) {
        *p++ = (unsigned char)(0x80 | size);
    } else {
        *p++ = 0x80 | 126;
        *p++ = (unsigned char)(size >> 8);
        *p++ = (unsigned char)size;
    }
    memcpy(p, mask, 4);
    p += 4;
    for (size_t i = 0; i < size; i++) p[i] = (unsigned char)payload[i] ^ mask[i % 4];
}

static void say(struct connection *c, const char *format, ...) {
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    put_frame(c, 0x81, text, (size_t)size);
}

static void flush(struct connection *c) {
    c->dirty = false;
    if (c->fd < 0 || c->stage == DIALLING) return;
    while (c->out_sent < c->out_size) {
        ssize_t sent = send(c->fd, c->out + c->out_sent, c->out_size - c->out_sent, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN) {
                error("send to u%u: %s", c->user, strerror(errno));
                hang_up(c);
                return;
            }
            if (!c->awaits_room) watch(c, EPOLL_CTL_MOD, true);
            return;
        }
        c->out_sent += (size_t)sent;
    }
    c->out_sent = c->out_size = 0;
    if (c->awaits_room) watch(c, EPOLL_CTL_MOD, false);
}

static void flush_all(void) {
    for (uint32_t i = 0; i < dirty_count; i++) flush(dirty[i]);
    dirty_count = 0;
}

/* --- messages --- */

#define STAMP 26 /* bytes of a text that say where and when it is from */
#define MOST_TEXT 60000
static const char digits[] = "0123456789abcdef";

static char *put_hex(char *p, uint64_t value, int width) {
    for (int i = width - 1; i >= 0; i--, value >>= 4) p[i] = digits[value & 15];
    return p + width;
}

static uint64_t take_hex(const char *p, int width) {
    uint64_t value = 0;
    for (int i = 0; i < width; i++) {
        char c = p[i];
        value = value << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return value;
}

static char *put_text(char *p, const char *text) {
    size_t size = strlen(text);
    memcpy(p, text, size);
    return p + size;
}

/* --- MQTT: packets of a type, a length of three bytes here, and strings behind their lengths --- */

static char *put_short(char *p, size_t value) {
    *p++ = (char)(value >> 8);
    *p++ = (char)value;
    return p;
}

static char *put_string(char *p, char letter, uint32_t number) {
    size_t size = (size_t)sprintf(p + 2, "%c%u", letter, number);
    return put_short(p, size) + size;
}

static char *begin_packet(char *p, int type) {
    *p = (char)type;
    return p + 4;
}

static void end_packet(char *packet, const char *end) {
    size_t length = (size_t)(end - packet) - 4;
    packet[1] = (char)(0x80 | (length & 127));
    packet[2] = (char)(0x80 | (length >> 7 & 127));
    packet[3] = (char)(length >> 14);
}

static char *put_publish(char *p, uint32_t topic) {
    return put_string(begin_packet(p, 0x30), 't', topic);
}

static void say_connect(struct connection *c) {
    char packet[64], *p = begin_packet(packet, 0x10);
    p = put_text(put_short(p, 4), "MQTT");
    p = put_text(p, "\x04\x02"); /* version 3.1.1, a clean session, */
    p = put_short(p, 0);          /* no keep-alive */
    p = put_string(p, 'u', c->user);
    end_packet(packet, p);
    put_frame(c, 0x82, packet, (size_t)(p - packet));
}

static void say_subscribe(struct connection *c, uint32_t topic) {
    char packet[64], *p = begin_packet(packet, 0x82);
    p = put_string(put_short(p, 1), 't', topic);
    *p++ = 0; /* QoS */
    end_packet(packet, p);
    put_frame(c, 0x82, packet, (size_t)(p - packet));
}

/* One message, to the sender's next destination; false if too many are under way. */
static bool send_message(struct sender *s, uint64_t when) {
    uint32_t number = s->number;
    struct destination *d = &s->destinations[number % s->destinations_count];
    uint32_t *missing = &s->missing[number & (s->places - 1)];
    static char frame[MOST_TEXT + 256];
    char decimal[12], *p = frame, *q = decimal + sizeof decimal;
    if (*missing != 0) {
        n.unsent++;
        return false;
    }
    if (o.messages && number >= (uint64_t)o.messages * s->destinations_count) return false;
    s->number++;
    *missing = d->receivers + (o.acks ? 1 : 0);
    if (dialect == MQTT) p = put_publish(p, d->room);
    if (dialect == CHAT) {
        uint32_t left = number;
        do *--q = (char)('0' + left % 10);
        while (left /= 10);
        p = put_text(p, signals() ? "{\"op\":\"signal\",\"id\":" : "{\"op\":\"send\",\"id\":");
        memcpy(p, q, (size_t)(decimal + sizeof decimal - q));
        p += decimal + sizeof decimal - q;
        *p++ = ',';
    } else {
        *p++ = '{';
    }
    p = put_text(p, d->address);
    p = put_text(p, signals() ? ",\"data\":\"" : ",\"msg\":\"");
    p = put_hex(p, (uint64_t)(s - senders), 4);
    p = put_hex(p, number, 8);
    p = put_hex(p, when, 14);
    memset(p, '.', (size_t)(o.text - STAMP));
    p = put_text(p + o.text - STAMP, "\"}");
    if (dialect == MQTT) end_packet(frame, p);
    put_frame(s->connection, dialect == MQTT ? 0x82 : 0x81, frame, (size_t)(p - frame));
    n.sent++;
    return true;
}

/* One of those things has come that a message waits for. */
static void came(struct sender *s, uint32_t number, uint64_t when) {
    uint32_t *missing = &s->missing[number & (s->places - 1)];
    if (*missing == 0) {
        error("more came of u%u's message %u than was sent", s->connection->user, number);
        return;
    }
    if (--*missing != 0) return;
    settled++;
    if (sending && !o.rate) send_message(s, when);
}

static void ready(struct connection *c, uint64_t when) {
    c->stage = READY;
    ready_count++;
    dialling--;
    n.opened++;
    if (measuring && !timing_messages) note_latency(when - c->since);
}

static void join_next(struct connection *c, uint64_t when) {
    if (c->joined == c->joins_count) {
        ready(c, when);
        return;
    }
    c->stage = JOINING;
    if (dialect == MQTT) {
        say_subscribe(c, c->joins[c->joined++]);
        return;
    }
    say(c, "{\"op\":\"%s\",\"%s\":\"t%u\",\"id\":0}",
        strcmp(room, "group") == 0 ? "join" : "subscribe", room, c->joins[c->joined++]);
}

static bool is(const char *p, const char *end, const char *word) {
    size_t size = strlen(word);
    return (size_t)(end - p) > size && memcmp(p, word, size) == 0 && p[size] == '"';
}

static void heard_message(struct connection *c, const char *p, const char *end, uint64_t when) {
    const char *key = signals() ? "\"data\":" : "\"msg\":";
    size_t size = strlen(key);
    const char *text = memmem(p, (size_t)(end - p), key, size);
    if (text != NULL) text += text[size] == ' ' ? size + 2 : size + 1;
    if (text == NULL || end - text < o.text) {
        error("u%u heard %.*s", c->user, (int)(end - p), p);
        return;
    }
    uint32_t from = (uint32_t)take_hex(text, 4), number = (uint32_t)take_hex(text + 4, 8);
    if (from >= senders_count) {
        error("u%u heard of a sender %u", c->user, from);
        return;
    }
    if (c->heard_from == from && number <= c->heard) n.disorder++;
    c->heard = number;
    c->heard_from = from;
    n.deliveries++;
    if (!timing_messages) return;
    if (measuring) note_latency(when - take_hex(text + 12, 14));
    came(&senders[from], number, when);
}

static void heard_event(struct connection *c, const char *p, const char *end, uint64_t when) {
    const char *whole = p;
    p += strlen("{\"event\":");
    if (p < end && *p == ' ') p++;
    p++;
    if (is(p, end, "ok")) {
        const char *id;
        if (c->stage != READY) {
            join_next(c, when);
        } else if (dialect == CHAT && (id = memmem(p, (size_t)(end - p), "\"id\":", 5)) != NULL) {
            n.acks++;
            came(&senders[c - connections], (uint32_t)strtoul(id + 5, NULL, 10), when);
        }
    } else if (is(p, end, "caught_up")) {
        if (c->stage == GREETING) join_next(c, when);
    } else if (is(p, end, "signal")) {
        heard_message(c, whole, end, when);
    } else if (is(p, end, "lagging")) {
        n.lagging++;
    } else if (is(p, end, "error") || is(p, end, "gap") || is(p, end, "closing")) {
        error("u%u heard %.*s", c->user, (int)(end - whole), whole);
    }
}

/* What is in a binary frame: whole packets. */
static void heard_packets(struct connection *c, const char *p, const char *end, uint64_t when) {
    while (p < end) {
        int type = (unsigned char)*p >> 4, shift = 0;
        size_t length = 0;
        const char *body = p + 1;
        do length |= (size_t)(*body & 127) << shift;
        while (shift += 7, *body++ & 0x80 && body < end);
        if (length > (size_t)(end - body)) {
            error("u%u got a part of a packet", c->user);
            return;
        }
        p = body + length;
        if (type == 3)
            heard_message(c, body, p, when);
        else if ((type == 2 || type == 9) && length >= 2 && (p[-1] & 0x80) == 0)
            join_next(c, when); /* accepted; subscribed */
        else
            error("u%u got a packet of type %d", c->user, type);
    }
}

/* --- reading --- */

#define READ_SIZE (1 << 18)
static char input[READ_SIZE + (1 << 20)];

/* All whole frames of `size` bytes at `p`; how many bytes they were. */
static size_t take_frames(struct connection *c, const char *begin, size_t size, uint64_t when) {
    const char *p = begin, *end = begin + size;
    while (end - p >= 2 && c->fd >= 0) {
        const unsigned char *h = (const unsigned char *)p;
        uint64_t length = h[1] & 0x7f;
        size_t head = 2;
        if (length == 126) {
            if (end - p < 4) break;
            length = (uint64_t)h[2] << 8 | h[3];
            head = 4;
        } else if (length == 127) {
            if (end - p < 10) break;
            length = 0;
            for (int i = 2; i < 10; i++) length = length << 8 | h[i];
            head = 10;
        }
        if (h[1] & 0x80 || !(h[0] & 0x80) || h[0] & 0x70 || length > (1 << 20) - 16) {
            error("u%u got a frame that begins with %02x%02x", c->user, h[0], h[1]);
            hang_up(c);
            break;
        }
        if ((uint64_t)(end - p) < head + length) break;
        const char *payload = p + head;
        p = payload + length;
        switch (h[0] & 15) {
            case 2:
                heard_packets(c, payload, p, when);
                break;
            case 1:
                if (length > 2 && payload[2] == 'e')
                    heard_event(c, payload, p, when);
                else
                    heard_message(c, payload, p, when);
                break;
            case 9:
                put_frame(c, 0x8a, payload, length);
                break;
            case 10:
                break;
            default:
                error("u%u was closed: %u", c->user, length < 2 ? 0u : h[head] * 256u + h[head + 1]);
                hang_up(c);
        }
    }
    return (size_t)(p - begin);
}

static size_t take_head(struct connection *c, const char *p, size_t size, uint64_t when) {
    const char *end = memmem(p, size, "\r\n\r\n", 4);
    if (end == NULL) return 0;
    if (memcmp(p, "HTTP/1.1 101", 12) != 0) {
        error("u%u was refused: %.30s", c->user, p);
        hang_up(c);
        return 0;
    }
    if (!o.hello) {
        ready(c, when);
    } else if (dialect == MQTT) {
        c->stage = GREETING;
        say_connect(c);
    } else {
        c->stage = GREETING;
        if (strcmp(o.mode, "resume") == 0) c->since = when;
        say(c, "{\"op\":\"hello\",\"user\":\"u%u\"}", c->user);
    }
    return (size_t)(end + 4 - p);
}

/* Whether there may be more to read: epoll tells of it only when it comes. */
static bool read_from(struct connection *c) {
    size_t size = c->left_size, taken = 0;
    memcpy(input, c->left, size);
    ssize_t got = recv(c->fd, input + size, READ_SIZE, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return errno == EINTR;
    if (got <= 0) {
        error("u%u was cut off: %s", c->user, got ? strerror(errno) : "end of stream");
        hang_up(c);
        return false;
    }
    uint64_t when = now();
    n.bytes_in += (uint64_t)got;
    size += (size_t)got;
    if (c->stage == SHAKING) taken = take_head(c, input, size, when);
    if (c->stage > SHAKING) taken += take_frames(c, input + taken, size - taken, when);
    c->left_size = size - taken;
    if (c->left_size > c->left_room) {
        c->left_room = c->left_size + 512;
        c->left = grown(c->left, c->left_room);
    }
    memcpy(c->left, input + taken, c->left_size);
    return got == READ_SIZE && c->fd >= 0;
}

/* --- connecting --- */

static void dial(struct connection *c) {
    /* Several source addresses, or the ports of one would be used up. */
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    int on = 1, small = 4096;
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + c->user % 16);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons((uint16_t)o.port);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) fail("socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (c->stuck) setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from) != 0) fail("bind: %s", strerror(errno));
    c->since = now();
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    c->stage = DIALLING;
    dialling++;
    watch(c, EPOLL_CTL_ADD, true);
}

static void connected(struct connection *c) {
    int problem = 0;
    socklen_t size = sizeof problem;
    char request[400], query[32] = "";
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &problem, &size);
    if (problem != 0) fail("connect: %s", strerror(problem));
    const char *offered[] = {"Sec-WebSocket-Protocol: chat.v1\r\n", "",
                             "Sec-WebSocket-Protocol: mqtt\r\n"};
    if (dialect == RELAY) snprintf(query, sizeof query, "?user=u%u", c->user);
    int length = snprintf(request, sizeof request,
                          "GET /ws%s HTTP/1.1\r\nHost: 127.0.0.1:%ld\r\nUpgrade: websocket\r\n"
                          "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n",
                          query, o.port, offered[dialect]);
    c->stage = SHAKING;
    memcpy(outgoing(c, (size_t)length), request, (size_t)length);
}

/* --- the loop --- */

static bool go;

/* Handle what happens within `timeout` milliseconds. */
static void turn(int timeout) {
    static struct epoll_event events[512];
    int count = epoll_wait(poller, events, 512, timeout);
    if (count < 0 && errno != EINTR) fail("epoll_wait: %s", strerror(errno));
    for (int i = 0; i < count; i++) {
        struct connection *c = events[i].data.ptr;
        if (c == NULL) { /* stdin, or its end */
            char line[64];
            if (read(0, line, sizeof line) < 0) fail("stdin: %s", strerror(errno));
            epoll_ctl(poller, EPOLL_CTL_DEL, 0, NULL);
            go = true;
        } else if (c->fd >= 0) {
            if (c->stage == DIALLING) connected(c);
            bool ended = events[i].events & EPOLLRDHUP, readable = events[i].events & ~EPOLLOUT;
            while (readable && c->fd >= 0 && (read_from(c) || ended)) continue;
            if (events[i].events & EPOLLOUT) flush_later(c);
        }
    }
    flush_all();
}

static void stalled_after(uint64_t *since, uint64_t *before) {
    if (*before != n.bytes_in) {
        *before = n.bytes_in;
        *since = now();
    }
    if (now() - *since > 30000000000u) fail("nothing came for 30 s");
    if (n.errors != 0) fail("%s", first_error);
}

/* Make the connections before `until`, `most` at a time, until all are ready. */
static void dial_until(uint32_t until, uint32_t most) {
    uint64_t since = now(), before = 0;
    while (ready_count < until) {
        while (dialled < until && dialling < most) dial(&connections[dialled++]);
        turn(1000);
        stalled_after(&since, &before);
    }
}

static void begin_sending(void) {
    sending = timing_messages = true;
    settled = 0;
    total_to_settle = 0;
    for (uint32_t i = 0; i < senders_count; i++)
        total_to_settle += (uint64_t)o.messages * senders[i].destinations_count;
    for (uint32_t i = 0; i < senders_count && !o.rate; i++)
        for (long k = 0; k < o.window; k++) send_message(&senders[i], now());
    flush_all();
}

static void settle_all(void) {
    uint64_t since = now(), before = 0;
    while (settled < total_to_settle) {
        turn(1000);
        stalled_after(&since, &before);
    }
}

/* Exchange messages for so many milliseconds. */
static void exchange_for(long milliseconds, int timer) {
    static uint32_t next;
    uint64_t begun = now(), end = begun + (uint64_t)milliseconds * 1000000u, at, by_clock = 0;
    while ((at = now()) < end) {
        if (!o.rate) {
            turn((int)((end - at) / 1000000u) + 1);
            continue;
        }
        uint64_t ticks, due = (at - begun) * (uint64_t)o.rate / 1000000000u;
        for (; by_clock < due; by_clock++) send_message(&senders[next++ % senders_count], at);
        flush_all();
        turn(1000);
        if (read(timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN) fail("timer");
    }
}

/* A timer that ends a turn of the loop twice a millisecond, to keep to a rate. */
static int keep_time(void) {
    static struct connection nobody = {.fd = -1};
    struct itimerspec each = {{0, 500000}, {0, 500000}};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &nobody};
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    timerfd_settime(timer, 0, &each, NULL);
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event);
    return timer;
}

static struct rusage usage_before;
static uint64_t begun;

static void begin(void) {
    memset(&n, 0, sizeof n);
    memset(histogram, 0, sizeof histogram);
    histogram_total = histogram_max = 0;
    measuring = true;
    puts("{\"phase\":\"begin\"}");
    getrusage(RUSAGE_SELF, &usage_before);
    begun = now();
}

static double seconds_between(struct timeval a, struct timeval b) {
    return (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_usec - a.tv_usec) / 1e6;
}

static void end(void) {
    struct rusage usage;
    double seconds = (double)(now() - begun) / 1e9;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"phase\":\"end\",\"seconds\":%.6f,\"deliveries\":%lu,\"acks\":%lu,\"sent\":%lu,"
           "\"unsent\":%lu,\"opened\":%lu,\"lagging\":%lu,\"disorder\":%lu,\"errors\":%lu,"
           "\"error\":\"%s\",\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"max\":%.1f,"
           "\"user\":%.6f,\"system\":%.6f}\n",
           seconds, n.deliveries, n.acks, n.sent, n.unsent, n.opened, n.lagging, n.disorder,
           n.errors, first_error, percentile(0.5), percentile(0.9), percentile(0.99),
           (double)histogram_max / 1000.0, seconds_between(usage_before.ru_utime, usage.ru_utime),
           seconds_between(usage_before.ru_stime, usage.ru_stime));
}

static void take_options(int count, char **arguments) {
    for (int i = 1; i < count; i++) {
        const char *value = strchr(arguments[i], '=');
        size_t k = 0, size = value == NULL ? 0 : (size_t)(value - arguments[i]);
        while (k < sizeof options / sizeof *options &&
               (strncmp(options[k].key, arguments[i], size) != 0 || options[k].key[size] != 0))
            k++;
        if (size == 0 || k == sizeof options / sizeof *options) fail("what is %s?", arguments[i]);
        if (options[k].word != NULL)
            *options[k].word = value + 1;
        else
            *options[k].number = strtol(value + 1, NULL, 10);
    }
    dialect = *o.dialect == 'c' ? CHAT : *o.dialect == 'r' ? RELAY : MQTT;
    if (o.text < STAMP || o.text > MOST_TEXT) fail("text=%ld", o.text);
}

int main(int count, char **arguments) {
    take_options(count, arguments);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    setvbuf(stdout, NULL, _IOLBF, 0);
    now();
    make_shape();
    dirty = zeroed(connections_count, sizeof *dirty);
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event on_stdin = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, 0, &on_stdin) != 0) fail("stdin must be a pipe");

    bool connecting = strcmp(o.mode, "connect") == 0, resuming = strcmp(o.mode, "resume") == 0;
    if (resuming) { /* all have been here once, and come again later */
        dial_until(connections_count, (uint32_t)o.dial);
        for (uint32_t i = 1; i < connections_count; i++) hang_up(&connections[i]);
        ready_count = dialled = 1;
        begin_sending();
        settle_all();
        sending = timing_messages = false;
    } else if (!connecting) {
        dial_until(connections_count, (uint32_t)o.dial);
    }
    printf("{\"phase\":\"ready\",\"connections\":%u}\n", ready_count);
    while (!go) turn(-1);

    if (connecting || resuming) {
        begin();
        dial_until(connections_count, connecting ? (uint32_t)o.dial : 1);
    } else {
        for (uint32_t i = 0; i < connections_count; i++)
            if (connections[i].stuck) epoll_ctl(poller, EPOLL_CTL_DEL, connections[i].fd, NULL);
        int timer = o.rate ? keep_time() : -1;
        if (o.messages) {
            begin();
            begin_sending();
            settle_all();
        } else {
            begin_sending();
            exchange_for(o.warmup, timer);
            begin();
            exchange_for(o.measured, timer);
        }
    }
    end();
    return 0;
}
