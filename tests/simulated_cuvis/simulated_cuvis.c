/* A simulated Cuvis library: what the tests of hsi_batch load in place of Cubert's libcuvis.so.
 *
 * It serves synthetic sessions to the real `cuvis` wrapper and its compiled extension. It knows
 * nothing of Cubert's file format, codecs or calibration: its sessions are files of our own, written
 * by session_file.py, which also documents their format. Function signatures and structure layouts
 * are interface facts of cuvis_il 3.6; the assertions below pin them. Functions that reading does
 * not need are added at build time as stubs that fail (plugin.py).
 *
 * What it deliberately does not guess: processed values. A frame lists the cube of each mode, and
 * `apply` hands out the listed cube unchanged. A context that was not given a mode has none.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TEXT 256 /* every string of the interface */

/* ------------------------------------------------------------------ the interface: numbers */

enum { OK = 1, FAILED = -1, NO_MEASUREMENT = -20, NOT_AVAILABLE = -30 };
enum { ITEM_FRAMES, ITEM_NO_GAPS, ITEM_REFERENCES };
enum { DATA_UNSUPPORTED, DATA_IMAGE, DATA_GPS, DATA_STRING, DATA_SENSOR_INFO };
enum { RAW, DARK_SUBTRACT, REFLECTANCE, SPECTRAL_RADIANCE, PREVIEW = 5, MODES };
enum { DARK, WHITE, WHITE_DARK, SP_RAD, DISTANCE, REFERENCES };
enum { UINT8 = 1, UINT16, UINT32, FLOAT32 };

/* ------------------------------------------------------------------ the interface: structures */

typedef struct {
  const uint8_t *raw;
  uint32_t bytes_per_element, length, width, height;
  uint16_t channels;
  int32_t format;
  const uint32_t *wavelength;
} image_t;

typedef struct {
  char name[TEXT], path[TEXT], comment[TEXT];
  uint64_t capture_time, factory_calibration;
  char product_name[TEXT], serial_number[TEXT], assembly[TEXT];
  double integration_time;
  int32_t averages;
  double distance;
  char session_name[TEXT];
  int32_t session_no, sequence_no, processing_mode, processing_mode_at_capture;
  uint32_t flags;
  uint64_t frame_id;
} metadata_t;

typedef struct {
  uint32_t averages;
  double temperature, gain;
  uint64_t readout_time;
  uint32_t width, height;
  uint64_t raw_frame_id;
  char pixel_format[TEXT];
  double integration_time;
} sensor_info_t;

typedef struct {
  double longitude, latitude, altitude;
  uint64_t time;
} gps_t;

typedef struct {
  int32_t processing_mode, allow_recalib;
} arguments_t;

#define AT(type, member, offset, width)                                                    \
  _Static_assert(offsetof(type, member) == (offset), #type "." #member " has moved");      \
  _Static_assert(sizeof((type *)0)->member == (width), #type "." #member " has another size")
#define SIZE(type, size) _Static_assert(sizeof(type) == (size), #type " has another size")

AT(image_t, raw, 0x00, 8);
AT(image_t, bytes_per_element, 0x08, 4);
AT(image_t, length, 0x0c, 4);
AT(image_t, width, 0x10, 4);
AT(image_t, height, 0x14, 4);
AT(image_t, channels, 0x18, 2);
AT(image_t, format, 0x1c, 4);
AT(image_t, wavelength, 0x20, 8);
SIZE(image_t, 40);
AT(metadata_t, name, 0x000, TEXT);
AT(metadata_t, path, 0x100, TEXT);
AT(metadata_t, comment, 0x200, TEXT);
AT(metadata_t, capture_time, 0x300, 8);
AT(metadata_t, factory_calibration, 0x308, 8);
AT(metadata_t, product_name, 0x310, TEXT);
AT(metadata_t, serial_number, 0x410, TEXT);
AT(metadata_t, assembly, 0x510, TEXT);
AT(metadata_t, integration_time, 0x610, 8);
AT(metadata_t, averages, 0x618, 4);
AT(metadata_t, distance, 0x620, 8);
AT(metadata_t, session_name, 0x628, TEXT);
AT(metadata_t, session_no, 0x728, 4);
AT(metadata_t, sequence_no, 0x72c, 4);
AT(metadata_t, processing_mode, 0x730, 4);
AT(metadata_t, processing_mode_at_capture, 0x734, 4);
AT(metadata_t, flags, 0x738, 4);
AT(metadata_t, frame_id, 0x740, 8);
SIZE(metadata_t, 1864);
AT(sensor_info_t, averages, 0x00, 4);
AT(sensor_info_t, temperature, 0x08, 8);
AT(sensor_info_t, gain, 0x10, 8);
AT(sensor_info_t, readout_time, 0x18, 8);
AT(sensor_info_t, width, 0x20, 4);
AT(sensor_info_t, height, 0x24, 4);
AT(sensor_info_t, raw_frame_id, 0x28, 8);
AT(sensor_info_t, pixel_format, 0x30, TEXT);
AT(sensor_info_t, integration_time, 0x130, 8);
SIZE(sensor_info_t, 312);
AT(gps_t, longitude, 0x00, 8);
AT(gps_t, latitude, 0x08, 8);
AT(gps_t, altitude, 0x10, 8);
AT(gps_t, time, 0x18, 8);
SIZE(gps_t, 32);
AT(arguments_t, processing_mode, 0, 4);
AT(arguments_t, allow_recalib, 4, 4);
SIZE(arguments_t, 8);

/* ------------------------------------------------------------------ errors and call counts */

/* Calls that can be made to fail, be slow, and are counted. */
static const char *const CALLS[] = {
    "init",          "load",           "get_size",       "get_mesu",
    "get_reference", "get_fps",        "get_hash",       "get_operation_mode",
    "create",        "set_args",       "set_reference",  "has_reference",
    "is_capable",    "apply",          "get_metadata",   "get_data_count",
    "get_data_info", "get_data_image", "get_data_string", "get_data_gps",
    "get_data_sensor_info", "clear_cube"};
enum {
  C_INIT, C_LOAD, C_SIZE, C_MESU, C_GET_REFERENCE, C_FPS, C_HASH, C_OPERATION,
  C_CREATE, C_SET_ARGS, C_SET_REFERENCE, C_HAS_REFERENCE, C_CAPABLE, C_APPLY, C_METADATA,
  C_COUNT, C_INFO, C_IMAGE, C_STRING, C_GPS, C_SENSOR, C_CLEAR, N_CALLS
};
_Static_assert(sizeof CALLS / sizeof *CALLS == N_CALLS, "a call has no name");

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long calls[N_CALLS];

/* One text per process, as in the real library. A ring, so that a text just handed out survives
 * the next failures of other threads. */
static char messages[64][1024];
static unsigned last_message;

static int32_t fail(int32_t status, const char *format, ...) {
  char text[sizeof messages[0]];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  pthread_mutex_lock(&lock);
  last_message = (last_message + 1) % 64;
  memcpy(messages[last_message], text, sizeof text);
  pthread_mutex_unlock(&lock);
  return status;
}

const char *cuvis_get_last_error_msg(void) {
  pthread_mutex_lock(&lock);
  const char *text = messages[last_message];
  pthread_mutex_unlock(&lock);
  return text;
}

static int call_number(const char *name) {
  for (int call = 0; call < N_CALLS; call++)
    if (!strcmp(CALLS[call], name)) return call;
  return -1;
}

/* ------------------------------------------------------------------ sessions in memory */

#define MAX_RULES 8

typedef struct { /* a call of one frame (or of the session) that fails or is slow */
  int call, after, sleep_ms;
  int32_t status;
  char message[TEXT];
} rule_t;

typedef struct { /* what the rules of one object have seen */
  int seen[N_CALLS];
} counts_t;

typedef struct { /* one cube in the file */
  int present, format;
  uint64_t offset;
} blob_t;

typedef struct { /* a frame, a dropped frame, or a reference */
  int gap, reference; /* reference: its type, or -1 */
  metadata_t metadata;
  uint32_t height, width;
  uint16_t channels;
  uint32_t *wavelength;
  int stored; /* the mode whose cube the file holds ready, or PREVIEW */
  int made;   /* the mode that a processed frame claims, or -1 for the one that was asked */
  unsigned implicit;
  blob_t cube[MODES];
  rule_t rules[MAX_RULES];
  int n_rules;
} record_t;

typedef struct {
  int users, file;
  record_t *records;
  int n_records;
  char hash[TEXT];
  double fps; /* negative: not recorded */
  int32_t operation_mode;
  rule_t rules[MAX_RULES];
  int n_rules;
  counts_t counts;
} session_t;

typedef struct {
  session_t *session;
  const record_t *record;
  metadata_t metadata;
  uint8_t *stored, *processed;
  int format; /* of the cube that is handed out */
  counts_t counts;
} measurement_t;

typedef struct {
  session_t *session;
  int mode; /* -1 until set */
  unsigned references;
} context_t;

/* Counts a call and applies its rules: sleeps, then returns the status to fail with, or OK. */
static int32_t enter(int call, const rule_t *rules, int n_rules, counts_t *counts) {
  pthread_mutex_lock(&lock);
  calls[call]++;
  int seen = counts->seen[call]++;
  pthread_mutex_unlock(&lock);
  for (int i = 0; i < n_rules; i++) {
    if (rules[i].call != call || seen < rules[i].after) continue;
    struct timespec pause = {rules[i].sleep_ms / 1000, rules[i].sleep_ms % 1000 * 1000000L};
    if (rules[i].sleep_ms) nanosleep(&pause, NULL);
    if (rules[i].status != OK) return fail(rules[i].status, "%s", rules[i].message);
  }
  return OK;
}

static int32_t enter_session(int call, session_t *session) {
  return enter(call, session->rules, session->n_rules, &session->counts);
}

static int32_t enter_measurement(int call, measurement_t *mesu) {
  return enter(call, mesu->record->rules, mesu->record->n_rules, &mesu->counts);
}

/* ------------------------------------------------------------------ handles */

enum { SESSION, MEASUREMENT, CONTEXT, METADATA, KINDS };

/* Numbers are never used again, so a stale handle is an error here and not another object. */
static struct { int kind; void *object; } *handles;
static int32_t n_handles = 1, room;
static long live[KINDS], created[KINDS];

static int32_t new_handle(int kind, void *object) {
  pthread_mutex_lock(&lock);
  if (n_handles >= room) {
    room = room ? 2 * room : 1024;
    handles = realloc(handles, (size_t)room * sizeof *handles);
    if (!handles) abort();
  }
  handles[n_handles].kind = kind;
  handles[n_handles].object = object;
  live[kind]++;
  created[kind]++;
  int32_t handle = n_handles++;
  pthread_mutex_unlock(&lock);
  return handle;
}

static void *find(int kind, int32_t handle) {
  pthread_mutex_lock(&lock);
  void *object = handle > 0 && handle < n_handles && handles[handle].kind == kind
                     ? handles[handle].object
                     : NULL;
  pthread_mutex_unlock(&lock);
  if (!object) fail(FAILED, "simulated: %" PRId32 " is not a live handle", handle);
  return object;
}

static void *take(int kind, int32_t *handle) {
  void *object = find(kind, *handle);
  if (!object) return NULL;
  pthread_mutex_lock(&lock);
  handles[*handle].object = NULL;
  live[kind]--;
  pthread_mutex_unlock(&lock);
  *handle = 0;
  return object;
}

static session_t *hold(session_t *session) {
  pthread_mutex_lock(&lock);
  session->users++;
  pthread_mutex_unlock(&lock);
  return session;
}

static void release(session_t *session) {
  pthread_mutex_lock(&lock);
  int users = --session->users;
  pthread_mutex_unlock(&lock);
  if (users) return;
  for (int i = 0; i < session->n_records; i++) free(session->records[i].wavelength);
  free(session->records);
  if (session->file >= 0) close(session->file);
  free(session);
}

/* ------------------------------------------------------------------ the session file */

/* The index is text, one "word value" a line; see session_file.py. */

static const int ELEMENT[] = {0, 1, 2, 4, 4};

static size_t cube_bytes(const record_t *record, int format) {
  return (size_t)record->height * record->width * record->channels * (size_t)ELEMENT[format];
}

static int read_all(int file, uint64_t offset, uint8_t *out, size_t bytes) {
  while (bytes) {
    ssize_t got = pread(file, out, bytes < (1u << 30) ? bytes : 1u << 30, (off_t)offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return 0;
    out += got;
    offset += (uint64_t)got;
    bytes -= (size_t)got;
  }
  return 1;
}

static void copy_text(char out[TEXT], const char *text) {
  memset(out, 0, TEXT);
  memcpy(out, text, strnlen(text, TEXT - 1));
}

static int parse_rule(rule_t *rules, int *n_rules, const char *value) {
  char call[64];
  int at = 0;
  rule_t rule = {0};
  if (sscanf(value, "%63s %" SCNd32 " %d %d %n", call, &rule.status, &rule.after, &rule.sleep_ms,
             &at) != 4)
    return 0;
  rule.call = call_number(call);
  if (rule.call < 0 || *n_rules == MAX_RULES) return 0;
  copy_text(rule.message, value + at);
  rules[(*n_rules)++] = rule;
  return 1;
}

static int parse_wavelength(record_t *record, const char *value) {
  uint32_t *list = calloc(record->channels ? record->channels : 1, sizeof *list);
  if (!list) return 0;
  for (int i = 0; i < record->channels; i++) {
    char *end;
    list[i] = (uint32_t)strtoul(value, &end, 10);
    if (end == value) {
      free(list);
      return 0;
    }
    value = end;
  }
  free(record->wavelength);
  record->wavelength = list;
  return 1;
}

static int parse_cube(record_t *record, const char *value) {
  int mode, format;
  uint64_t offset;
  if (sscanf(value, "%d %d %" SCNu64, &mode, &format, &offset) != 3) return 0;
  if (mode < 0 || mode >= MODES || format < UINT8 || format > FLOAT32) return 0;
  record->cube[mode] = (blob_t){1, format, offset};
  return 1;
}

static int parse_frame_line(record_t *record, const char *word, const char *value) {
  metadata_t *m = &record->metadata;
#define NUMBER(name, format, target) \
  if (!strcmp(word, name)) return sscanf(value, format, target) == 1
#define STRING(name, target) \
  if (!strcmp(word, name)) return copy_text(target, value), 1
  NUMBER("gap", "%d", &record->gap);
  NUMBER("reference", "%d", &record->reference);
  NUMBER("stored", "%d", &record->stored);
  NUMBER("made", "%d", &record->made);
  NUMBER("implicit", "%u", &record->implicit);
  NUMBER("frame_id", "%" SCNu64, &m->frame_id);
  NUMBER("capture_time", "%" SCNu64, &m->capture_time);
  NUMBER("factory_calibration", "%" SCNu64, &m->factory_calibration);
  NUMBER("integration_time", "%lf", &m->integration_time);
  NUMBER("averages", "%" SCNd32, &m->averages);
  NUMBER("distance", "%lf", &m->distance);
  NUMBER("session_no", "%" SCNd32, &m->session_no);
  NUMBER("sequence_no", "%" SCNd32, &m->sequence_no);
  NUMBER("flags", "%" SCNu32, &m->flags);
  STRING("name", m->name);
  STRING("comment", m->comment);
  STRING("product_name", m->product_name);
  STRING("serial_number", m->serial_number);
  STRING("assembly", m->assembly);
  STRING("session_name", m->session_name);
  if (!strcmp(word, "shape"))
    return sscanf(value, "%" SCNu32 " %" SCNu32 " %" SCNu16, &record->height, &record->width,
                  &record->channels) == 3;
  if (!strcmp(word, "wavelength")) return parse_wavelength(record, value);
  if (!strcmp(word, "cube")) return parse_cube(record, value);
  if (!strcmp(word, "rule")) return parse_rule(record->rules, &record->n_rules, value);
  return 0;
}

static record_t *add_record(session_t *session) {
  int n = session->n_records;
  if (!(n & (n - 1))) { /* 0, 1, 2, 4, ...: double the room */
    size_t size = (n ? 2 * (size_t)n : 1) * sizeof *session->records;
    record_t *grown = realloc(session->records, size);
    if (!grown) return NULL;
    session->records = grown;
  }
  record_t *record = &session->records[session->n_records++];
  memset(record, 0, sizeof *record);
  record->reference = -1;
  record->stored = PREVIEW;
  record->made = -1;
  return record;
}

static int parse_line(session_t *session, record_t **record, const char *word, const char *value) {
  if (!strcmp(word, "frame")) return (*record = add_record(session)) != NULL;
  if (*record) return parse_frame_line(*record, word, value);
  NUMBER("fps", "%lf", &session->fps);
  NUMBER("operation_mode", "%" SCNd32, &session->operation_mode);
  STRING("hash", session->hash);
  if (!strcmp(word, "rule")) return parse_rule(session->rules, &session->n_rules, value);
  return 0;
}

/* Reads the index; returns what is wrong with it, or NULL. */
static const char *parse_index(session_t *session, const char *path) {
  char head[33] = "";
  long start;
  if (!read_all(session->file, 0, (uint8_t *)head, 32)) return "too short for a header";
  if (sscanf(head, "SIMULATED-CU3S 1 %15ld", &start) != 1 || start < 32 || start > 1 << 30)
    return "no header of a simulated session";
  char *index = calloc(1, (size_t)start - 32 + 1);
  if (!index) return "out of memory";
  const char *problem = "the index ends early";
  record_t *record = NULL;
  if (read_all(session->file, 32, (uint8_t *)index, (size_t)start - 32)) {
    for (char *line = index, *next; (next = strchr(line, '\n')); line = next + 1) {
      *next = 0;
      if (!strcmp(line, "end")) {
        problem = NULL;
        break;
      }
      char *value = strchr(line, ' ');
      if (value) *value++ = 0;
      if (!parse_line(session, &record, line, value ? value : "")) {
        problem = "a line of the index is not understood";
        break;
      }
    }
  }
  free(index);
  for (int i = 0; i < session->n_records; i++) {
    record = &session->records[i];
    copy_text(record->metadata.path, path);
    int known = record->stored == PREVIEW || (record->stored >= 0 && record->stored < MODES);
    if (!known || record->reference >= REFERENCES || record->made >= MODES) return "a number is out of range";
    if (record->stored != PREVIEW && !record->cube[record->stored].present)
      return "a stored cube is not listed";
  }
  return problem;
}

/* ------------------------------------------------------------------ entry points: general */

static int32_t init_level = -1, init_found;
static char init_settings[TEXT];

int32_t cuvis_version(char out[TEXT]) {
  copy_text(out, "SIMULATED CUVIS of the hsi_batch tests v. 3.6.1 build: 5100a7ed");
  return OK;
}

/* SIMULATED_CUVIS_INIT, if set, is the status to fail with. */
int32_t cuvis_init(const char *settings, int32_t level, const char *logfile) {
  (void)logfile;
  char file[2 * TEXT];
  snprintf(file, sizeof file, "%s/cuvis.settings", settings);
  pthread_mutex_lock(&lock);
  init_found = !access(file, R_OK);
  calls[C_INIT]++;
  init_level = level;
  copy_text(init_settings, settings);
  pthread_mutex_unlock(&lock);
  const char *status = getenv("SIMULATED_CUVIS_INIT");
  return status ? fail(atoi(status), "simulated: init was told to fail") : OK;
}

int32_t cuvis_set_log_level(int32_t level) { return (void)level, OK; }
int32_t cuvis_shutdown(void) { return OK; }

/* ------------------------------------------------------------------ entry points: sessions */

int32_t cuvis_session_file_load(const char *path, int32_t *out) {
  session_t *session = calloc(1, sizeof *session);
  if (!session) return fail(FAILED, "simulated: out of memory");
  session->users = 1;
  session->fps = -1;
  session->operation_mode = 4;
  session->file = open(path, O_RDONLY | O_CLOEXEC);
  const char *problem = session->file < 0 ? strerror(errno) : parse_index(session, path);
  int32_t status = problem ? fail(FAILED, "simulated: cannot load the session: %s", problem)
                           : enter_session(C_LOAD, session);
  if (status != OK) {
    release(session);
    return status;
  }
  *out = new_handle(SESSION, session);
  return OK;
}

int32_t cuvis_session_file_free(int32_t *handle) {
  session_t *session = take(SESSION, handle);
  if (!session) return FAILED;
  release(session);
  return OK;
}

static int belongs(const record_t *record, int32_t type) {
  if (type == ITEM_REFERENCES) return record->reference >= 0;
  return record->reference < 0 && (type == ITEM_FRAMES || !record->gap);
}

int32_t cuvis_session_file_get_size(int32_t handle, int32_t type, int32_t *out) {
  session_t *session = find(SESSION, handle);
  if (!session) return FAILED;
  int32_t status = enter_session(C_SIZE, session);
  if (status != OK) return status;
  *out = 0;
  for (int i = 0; i < session->n_records; i++) *out += belongs(&session->records[i], type);
  return OK;
}

int32_t cuvis_session_file_get_fps(int32_t handle, double *out) {
  session_t *session = find(SESSION, handle);
  if (!session) return FAILED;
  int32_t status = enter_session(C_FPS, session);
  if (status != OK) return status;
  if (session->fps < 0) return fail(NOT_AVAILABLE, "simulated: no frame rate was recorded");
  *out = session->fps;
  return OK;
}

int32_t cuvis_session_file_get_operation_mode(int32_t handle, int32_t *out) {
  session_t *session = find(SESSION, handle);
  if (!session) return FAILED;
  int32_t status = enter_session(C_OPERATION, session);
  if (status == OK) *out = session->operation_mode;
  return status;
}

int32_t cuvis_session_file_get_hash(int32_t handle, char out[TEXT]) {
  session_t *session = find(SESSION, handle);
  if (!session) return FAILED;
  int32_t status = enter_session(C_HASH, session);
  if (status == OK) copy_text(out, session->hash);
  return status;
}

static uint8_t *read_cube(measurement_t *mesu, int mode) {
  const record_t *record = mesu->record;
  const blob_t *blob = &record->cube[mode];
  size_t bytes = cube_bytes(record, blob->format);
  uint8_t *cube = malloc(bytes ? bytes : 1);
  if (cube && !read_all(mesu->session->file, blob->offset, cube, bytes)) {
    free(cube);
    cube = NULL;
  }
  return cube;
}

static void free_measurement(measurement_t *mesu) {
  free(mesu->stored);
  free(mesu->processed);
  release(mesu->session);
  free(mesu);
}

static int32_t new_measurement(session_t *session, const record_t *record, int32_t *out) {
  measurement_t *mesu = calloc(1, sizeof *mesu);
  if (!mesu) return fail(FAILED, "simulated: out of memory");
  mesu->session = hold(session);
  mesu->record = record;
  mesu->metadata = record->metadata;
  mesu->metadata.processing_mode = record->stored;
  mesu->metadata.processing_mode_at_capture = record->stored;
  mesu->format = record->cube[record->stored].format;
  int32_t status = record->reference < 0 ? enter_measurement(C_MESU, mesu) : OK;
  if (status == OK && record->stored != PREVIEW && !(mesu->stored = read_cube(mesu, record->stored)))
    status = fail(FAILED, "simulated: the file ends within the frame");
  if (status != OK) {
    free_measurement(mesu);
    return status;
  }
  *out = new_handle(MEASUREMENT, mesu);
  return OK;
}

int32_t cuvis_session_file_get_mesu(int32_t handle, int32_t number, int32_t type, int32_t *out) {
  session_t *session = find(SESSION, handle);
  if (!session) return FAILED;
  for (int i = 0, seen = 0; i < session->n_records; i++) {
    record_t *record = &session->records[i];
    if (!belongs(record, type) || seen++ != number) continue;
    if (record->gap) return NO_MEASUREMENT;
    return new_measurement(session, record, out);
  }
  return fail(FAILED, "simulated: there is no frame %" PRId32, number);
}

int32_t cuvis_session_file_get_reference_mesu(int32_t handle, int32_t number, int32_t type,
                                              int32_t *out) {
  session_t *session = find(SESSION, handle);
  if (!session) return FAILED;
  int32_t status = enter_session(C_GET_REFERENCE, session);
  if (status != OK) return status;
  if (number != 0) return fail(FAILED, "simulated: a reference of a type has number 0");
  for (int i = 0; i < session->n_records; i++)
    if (session->records[i].reference == type)
      return new_measurement(session, &session->records[i], out);
  return NO_MEASUREMENT;
}

/* ------------------------------------------------------------------ entry points: measurements */

int32_t cuvis_measurement_free(int32_t *handle) {
  measurement_t *mesu = take(MEASUREMENT, handle);
  if (!mesu) return FAILED;
  free_measurement(mesu);
  return OK;
}

int32_t cuvis_measurement_clear_cube(int32_t handle) {
  measurement_t *mesu = find(MEASUREMENT, handle);
  if (!mesu) return FAILED;
  int32_t status = enter_measurement(C_CLEAR, mesu);
  if (status != OK) return status;
  free(mesu->processed);
  mesu->processed = NULL;
  mesu->metadata.processing_mode = mesu->record->stored;
  mesu->format = mesu->record->cube[mesu->record->stored].format;
  return OK;
}

metadata_t *cuvis_mesu_metadata_allocate(void) {
  pthread_mutex_lock(&lock);
  live[METADATA]++;
  created[METADATA]++;
  pthread_mutex_unlock(&lock);
  return calloc(1, sizeof(metadata_t));
}

int32_t cuvis_mesu_metadata_free(metadata_t *metadata) {
  pthread_mutex_lock(&lock);
  live[METADATA]--;
  pthread_mutex_unlock(&lock);
  free(metadata);
  return OK;
}

int32_t cuvis_measurement_get_metadata(int32_t handle, metadata_t *out) {
  measurement_t *mesu = find(MEASUREMENT, handle);
  if (!mesu) return FAILED;
  int32_t status = enter_measurement(C_METADATA, mesu);
  if (status == OK) *out = mesu->metadata;
  return status;
}

static int has_cube(const measurement_t *mesu) { return mesu->processed || mesu->stored; }

/* The entries that every measurement carries after its cube. The last cannot be handed out. */
static const struct { const char *key; int32_t type; } ENTRIES[] = {
    {"preview", DATA_IMAGE},
    {"IMAGE_info", DATA_SENSOR_INFO},
    {"GPS_data", DATA_GPS},
    {"dark_ref", DATA_STRING},
    {"", DATA_UNSUPPORTED},
};
enum { N_ENTRIES = sizeof ENTRIES / sizeof *ENTRIES };

int32_t cuvis_measurement_get_data_count(int32_t handle, int32_t *out) {
  measurement_t *mesu = find(MEASUREMENT, handle);
  if (!mesu) return FAILED;
  int32_t status = enter_measurement(C_COUNT, mesu);
  if (status == OK) *out = N_ENTRIES + has_cube(mesu);
  return status;
}

int32_t cuvis_measurement_get_data_info(int32_t handle, char key[TEXT], int32_t *type, int32_t id) {
  measurement_t *mesu = find(MEASUREMENT, handle);
  if (!mesu) return FAILED;
  int32_t status = enter_measurement(C_INFO, mesu);
  if (status != OK) return status;
  int entry = id - has_cube(mesu);
  if (entry >= N_ENTRIES || id < 0) return fail(FAILED, "simulated: there is no entry %d", id);
  copy_text(key, entry < 0 ? "cube" : ENTRIES[entry].key);
  *type = entry < 0 ? DATA_IMAGE : ENTRIES[entry].type;
  return OK;
}

int32_t cuvis_measurement_get_data_image(int32_t handle, const char *key, image_t *out) {
  static const uint8_t preview[2 * 2 * 3] = {0};
  measurement_t *mesu = find(MEASUREMENT, handle);
  if (!mesu) return FAILED;
  int32_t status = enter_measurement(C_IMAGE, mesu);
  if (status != OK) return status;
  const record_t *record = mesu->record;
  if (!strcmp(key, "preview")) {
    *out = (image_t){preview, 1, sizeof preview, 2, 2, 3, UINT8, NULL};
    return OK;
  }
  if (strcmp(key, "cube") || !has_cube(mesu)) return fail(NOT_AVAILABLE, "simulated: no %s", key);
  int format = mesu->format;
  *out = (image_t){mesu->processed ? mesu->processed : mesu->stored,
                   (uint32_t)ELEMENT[format],
                   (uint32_t)cube_bytes(record, format),
                   record->width,
                   record->height,
                   record->channels,
                   format,
                   record->wavelength};
  return OK;
}

int32_t cuvis_measurement_get_data_string_length(int32_t handle, const char *key, uint64_t *out) {
  *out = strlen(key);
  return find(MEASUREMENT, handle) ? OK : FAILED;
}

/* The value of a text entry is its key. */
int32_t cuvis_measurement_get_data_string(int32_t handle, const char *key, uint64_t size,
                                          char *out) {
  measurement_t *mesu = find(MEASUREMENT, handle);
  if (!mesu) return FAILED;
  int32_t status = enter_measurement(C_STRING, mesu);
  if (status == OK && size) snprintf(out, size, "%s", key);
  return status;
}

int32_t cuvis_measurement_get_data_gps(int32_t handle, const char *key, gps_t *out) {
  (void)key;
  measurement_t *mesu = find(MEASUREMENT, handle);
  if (!mesu) return FAILED;
  int32_t status = enter_measurement(C_GPS, mesu);
  if (status == OK) *out = (gps_t){9.98, 48.4, 480, 1700000000000};
  return status;
}

int32_t cuvis_measurement_get_data_sensor_info(int32_t handle, const char *key,
                                               sensor_info_t *out) {
  (void)key;
  measurement_t *mesu = find(MEASUREMENT, handle);
  if (!mesu) return FAILED;
  int32_t status = enter_measurement(C_SENSOR, mesu);
  if (status != OK) return status;
  *out = (sensor_info_t){3, 41.5, 1.25, 1700000000001, 410, 275, 1ull << 40, "Mono12", 7.5};
  return OK;
}

/* ------------------------------------------------------------------ entry points: processing */

int32_t cuvis_proc_cont_create_from_session_file(int32_t handle, int32_t load_references,
                                                 int32_t *out) {
  session_t *session = find(SESSION, handle);
  if (!session) return FAILED;
  int32_t status = enter_session(C_CREATE, session);
  if (status != OK) return status;
  context_t *context = calloc(1, sizeof *context);
  if (!context) return fail(FAILED, "simulated: out of memory");
  context->session = hold(session);
  context->mode = -1;
  for (int i = 0; load_references && i < session->n_records; i++)
    if (session->records[i].reference >= 0)
      context->references |= 1u << session->records[i].reference;
  *out = new_handle(CONTEXT, context);
  return OK;
}

int32_t cuvis_proc_cont_free(int32_t *handle) {
  context_t *context = take(CONTEXT, handle);
  if (!context) return FAILED;
  release(context->session);
  free(context);
  return OK;
}

int32_t cuvis_proc_cont_set_args(int32_t handle, arguments_t arguments) {
  context_t *context = find(CONTEXT, handle);
  if (!context) return FAILED;
  int32_t status = enter_session(C_SET_ARGS, context->session);
  if (status == OK) context->mode = arguments.processing_mode;
  return status;
}

int32_t cuvis_proc_cont_set_reference(int32_t handle, int32_t mesu, int32_t type) {
  context_t *context = find(CONTEXT, handle);
  if (!context || !find(MEASUREMENT, mesu)) return FAILED;
  int32_t status = enter_session(C_SET_REFERENCE, context->session);
  if (status == OK) context->references |= 1u << type;
  return status;
}

int32_t cuvis_proc_cont_has_reference(int32_t handle, int32_t type, int32_t *out) {
  context_t *context = find(CONTEXT, handle);
  if (!context) return FAILED;
  int32_t status = enter_session(C_HAS_REFERENCE, context->session);
  if (status == OK) *out = context->references >> type & 1;
  return status;
}

/* Why a mode cannot be computed, or NULL. */
static const char *obstacle(const context_t *context, const measurement_t *mesu, int mode) {
  static const unsigned needed[MODES] = {
      [DARK_SUBTRACT] = 1u << DARK,
      [REFLECTANCE] = 1u << DARK | 1u << WHITE,
      [SPECTRAL_RADIANCE] = 1u << DARK | 1u << SP_RAD,
  };
  if (mode < 0 || mode >= MODES || mode == 4) return "no processing mode was set";
  if (needed[mode] & ~(context->references | mesu->record->implicit)) return "a reference is missing";
  if (mode != PREVIEW && !mesu->record->cube[mode].present) return "the session has no such cube";
  return NULL;
}

int32_t cuvis_proc_cont_is_capable(int32_t handle, int32_t mesu_handle, arguments_t arguments,
                                   int32_t *out) {
  context_t *context = find(CONTEXT, handle);
  measurement_t *mesu = find(MEASUREMENT, mesu_handle);
  if (!context || !mesu) return FAILED;
  int32_t status = enter_measurement(C_CAPABLE, mesu);
  if (status == OK) *out = !obstacle(context, mesu, arguments.processing_mode);
  return status;
}

int32_t cuvis_proc_cont_apply(int32_t handle, int32_t mesu_handle) {
  context_t *context = find(CONTEXT, handle);
  measurement_t *mesu = find(MEASUREMENT, mesu_handle);
  if (!context || !mesu) return FAILED;
  int32_t status = enter_measurement(C_APPLY, mesu);
  if (status != OK) return status;
  const char *problem = obstacle(context, mesu, context->mode);
  if (problem) return fail(FAILED, "simulated: cannot process: %s", problem);
  uint8_t *cube = NULL;
  if (context->mode != PREVIEW && !(cube = read_cube(mesu, context->mode)))
    return fail(FAILED, "simulated: the file ends within the frame");
  free(mesu->processed);
  mesu->processed = cube;
  if (!cube) {
    free(mesu->stored);
    mesu->stored = NULL;
  }
  mesu->format = mesu->record->cube[context->mode].format;
  mesu->metadata.processing_mode = mesu->record->made < 0 ? context->mode : mesu->record->made;
  return OK;
}

/* ------------------------------------------------------------------ what the tests ask */

/* Handles not yet freed: 0 sessions, 1 measurements, 2 contexts, 3 metadata structures. */
long sim_live_handles(int kind) {
  pthread_mutex_lock(&lock);
  long count = kind >= 0 && kind < KINDS ? live[kind] : -1;
  pthread_mutex_unlock(&lock);
  return count;
}

long sim_created_handles(int kind) {
  pthread_mutex_lock(&lock);
  long count = kind >= 0 && kind < KINDS ? created[kind] : -1;
  pthread_mutex_unlock(&lock);
  return count;
}

long sim_calls(const char *name) {
  int call = call_number(name);
  pthread_mutex_lock(&lock);
  long count = call < 0 ? -1 : calls[call];
  pthread_mutex_unlock(&lock);
  return count;
}

/* The last init: its level, its folder, and whether that held a cuvis.settings at the time. */
int32_t sim_init_level(void) { return init_level; }
int32_t sim_init_found(void) { return init_found; }
const char *sim_init_settings(void) { return init_settings; }
