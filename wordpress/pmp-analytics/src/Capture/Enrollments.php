<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

use PMP\Analytics\Clock;
use PMP\Analytics\Hook;
use PMP\Analytics\Payload\Clean;
use PMP\Analytics\Payload\EventPayload;
use PMP\Analytics\Payload\Uuid;
use PMP\Analytics\Payload\JourneyPayload;
use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\Message;
use PMP\Analytics\Registerable;
use PMP_Config;
use PMP_Event_Queue;
use WP_Post;

/**
 * Course enrolments by LearnDash (single users or groups), LifterLMS, Tutor LMS, or the action `pmp_course_enrollment` (user,
 * course). Each is reported once; a user who was removed from a course may be enrolled again.
 */
final class Enrollments implements Registerable
{
    private const REPORTED = 'pmp_enrolled_';

    public function __construct(
        private readonly PMP_Event_Queue $queue,
        private readonly PMP_Config $config,
        private readonly Clock $clock,
    ) {
    }

    public function register(): void
    {
        Hook::action('pmp_course_enrollment', [$this, 'enrolled'], 20, 2);
        Hook::action('llms_user_enrolled_in_course', [$this, 'enrolled'], 20, 2);
        Hook::action('llms_user_removed_from_course', [$this, 'removed'], 20, 2);
        Hook::action('learndash_update_course_access', [$this, 'learndash_access'], 20, 4);
        Hook::action('ld_added_group_access', [$this, 'learndash_group_joined'], 20, 2);
        Hook::action('ld_removed_group_access', [$this, 'learndash_group_left'], 20, 2);
        Hook::action('ld_added_course_group_access', [$this, 'learndash_group_extended'], 20, 2);
        Hook::action('ld_removed_course_group_access', [$this, 'learndash_group_reduced'], 20, 2);
        Hook::action('tutor_after_enrolled', [$this, 'tutor_enrolled'], 20, 3);
        Hook::action('tutor_enrollment/after/cancel', [$this, 'tutor_removed'], 20);
        Hook::action('tutor_enrollment/after/expired', [$this, 'tutor_removed'], 20);
    }

    public function enrolled(mixed $user_id, mixed $course_id): void
    {
        Guard::attempt(fn () => $this->report(Clean::number($user_id), Clean::number($course_id)));
    }

    public function removed(mixed $user_id, mixed $course_id): void
    {
        delete_user_meta(Clean::number($user_id), self::REPORTED . Clean::number($course_id));
    }

    /**
     * LearnDash fires this for every change, including the end of access.
     */
    public function learndash_access(mixed $user_id, mixed $course_id, mixed $users = null, mixed $removed = false): void
    {
        $removed ? $this->removed($user_id, $course_id) : $this->enrolled($user_id, $course_id);
    }

    public function learndash_group_joined(mixed $user_id, mixed $group_id): void
    {
        foreach (self::courses_of_group($group_id) as $course_id) {
            $this->enrolled($user_id, $course_id);
        }
    }

    public function learndash_group_left(mixed $user_id, mixed $group_id): void
    {
        foreach (self::courses_of_group($group_id) as $course_id) {
            $this->lost_access($user_id, $course_id);
        }
    }

    public function learndash_group_extended(mixed $course_id, mixed $group_id): void
    {
        foreach (self::users_of_group($group_id) as $user_id) {
            $this->enrolled($user_id, $course_id);
        }
    }

    public function learndash_group_reduced(mixed $course_id, mixed $group_id): void
    {
        foreach (self::users_of_group($group_id) as $user_id) {
            $this->lost_access($user_id, $course_id);
        }
    }

    /**
     * @param mixed $enrollment Id of Tutor's record: a different id is a new enrolment, even if the end of the previous one
     *     was never reported because its record was deleted.
     */
    public function tutor_enrolled(mixed $course_id, mixed $user_id, mixed $enrollment = 0): void
    {
        $this->report(Clean::number($user_id), Clean::number($course_id), Clean::number($enrollment));
    }

    public function tutor_removed(mixed $enrollment): void
    {
        $record = get_post(Clean::number($enrollment));
        if ($record instanceof WP_Post && $record->post_type === 'tutor_enrolled') {
            $this->removed($record->post_author, $record->post_parent);
        }
    }

    /**
     * The reported enrolments of a user.
     *
     * @return array<int, int> Times in seconds since 1970, by course.
     */
    public static function reported_of(int $user_id): array
    {
        $reported = [];
        foreach ($user_id > 0 ? (array) get_user_meta($user_id) : [] as $name => $values) {
            if (str_starts_with((string) $name, self::REPORTED)) {
                $reported[(int) substr($name, strlen(self::REPORTED))] = (int) ($values[0] ?? 0);
            }
        }
        return $reported;
    }

    /**
     * @return bool True if there were any.
     */
    public static function forget(int $user_id): bool
    {
        $courses = array_keys(self::reported_of($user_id));
        array_map(static fn (int $course_id): bool => delete_user_meta($user_id, self::REPORTED . $course_id), $courses);
        return $courses !== [];
    }

    private function report(int $user_id, int $course_id, int $enrollment = 0): void
    {
        if ($user_id <= 0 || $course_id <= 0 || $this->config->is_staff($user_id)) {
            return;
        }
        $now = $this->clock->now();
        if (! $this->is_new($user_id, self::REPORTED . $course_id, (string) (int) $now, $enrollment)) {
            return;
        }
        $id = Uuid::make($now);
        $facts = [
            'id' => $id,
            'timestamp' => $now,
            'user_id' => $user_id,
            // A user who is enrolled by staff or by a payment is not the visitor of this request.
            'session_id' => get_current_user_id() === $user_id ? Visitor::current()->session_id() : '',
            'source' => 'plugin',
            'metadata' => ['course_id' => (string) $course_id, 'course_name' => get_the_title($course_id)],
        ];
        $this->queue->add(
            new Message(Kind::Event, $id, EventPayload::of('course_enrollment', $facts)),
            new Message(Kind::Conversion, $id, JourneyPayload::conversion('enrollment', $facts)),
        );
    }

    /**
     * Stores an enrolment if none is stored, or if Tutor's id is a different one; of two concurrent requests one succeeds.
     */
    private function is_new(int $user_id, string $note, string $now, int $enrollment): bool
    {
        $value = $enrollment > 0 ? "{$now}:{$enrollment}" : $now;
        if (add_user_meta($user_id, $note, $value, true)) {
            return true;
        }
        $known = (string) get_user_meta($user_id, $note, true);
        $known_enrollment = (int) (explode(':', $known)[1] ?? 0);
        return $enrollment > 0 && ! in_array($known_enrollment, [0, $enrollment], true)
            && update_user_meta($user_id, $note, $value, $known) !== false;
    }

    /**
     * Unless the user still has access through another group or a purchase.
     */
    private function lost_access(mixed $user_id, mixed $course_id): void
    {
        if (! function_exists('sfwd_lms_has_access') || ! sfwd_lms_has_access(Clean::number($course_id), Clean::number($user_id))) {
            $this->removed($user_id, $course_id);
        }
    }

    /**
     * @return array<mixed>
     */
    private static function courses_of_group(mixed $group_id): array
    {
        return function_exists('learndash_group_enrolled_courses')
            ? (array) learndash_group_enrolled_courses(Clean::number($group_id))
            : [];
    }

    /**
     * @return array<mixed>
     */
    private static function users_of_group(mixed $group_id): array
    {
        return function_exists('learndash_get_groups_user_ids') ? (array) learndash_get_groups_user_ids(Clean::number($group_id)) : [];
    }
}
