<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

use PMP\Analytics\Clock;
use PMP\Analytics\Payload\EventPayload;
use PMP\Analytics\Payload\Identifier;
use PMP\Analytics\Payload\JourneyPayload;
use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\Message;
use PMP\Analytics\Registerable;
use PMP_Config;
use PMP_Event_Queue;

/**
 * People who are let into a course, once for each course: by LearnDash, LifterLMS or Tutor LMS, or by the action
 * `pmp_course_enrollment` (user, course).
 */
final class Enrollments implements Registerable
{
    private const TOLD = 'pmp_enrolled_';

    public function __construct(
        private readonly PMP_Event_Queue $queue,
        private readonly PMP_Config $config,
        private readonly Clock $clock,
    ) {
    }

    public function register(): void
    {
        add_action('pmp_course_enrollment', [$this, 'enrolled'], 20, 2);
        add_action('llms_user_enrolled_in_course', [$this, 'enrolled'], 20, 2);
        add_action('learndash_update_course_access', [$this, 'learndash_access'], 20, 4);
        add_action('tutor_after_enrolled', [$this, 'tutor_enrolled'], 20, 2);
    }

    public function enrolled(int|string $user_id, int|string $course_id): void
    {
        Guard::attempt(fn () => $this->tell((int) $user_id, (int) $course_id));
    }

    /**
     * LearnDash tells of every change, also of the end of an access.
     */
    public function learndash_access(int|string $user_id, int|string $course_id, mixed $users = null, mixed $removed = false): void
    {
        if ($removed) {
            delete_user_meta((int) $user_id, self::TOLD . (int) $course_id);
            return;
        }
        $this->enrolled($user_id, $course_id);
    }

    public function tutor_enrolled(int|string $course_id, int|string $user_id): void
    {
        $this->enrolled($user_id, $course_id);
    }

    /**
     * Which of somebody's enrolments were told, and when.
     *
     * @return array<int, int> Seconds since 1970, by course.
     */
    public static function told_of(int $user_id): array
    {
        $told = [];
        foreach ($user_id > 0 ? (array) get_user_meta($user_id) : [] as $name => $values) {
            if (str_starts_with((string) $name, self::TOLD)) {
                $told[(int) substr($name, strlen(self::TOLD))] = (int) ($values[0] ?? 0);
            }
        }
        return $told;
    }

    /**
     * @return bool True when something was there to forget.
     */
    public static function forget(int $user_id): bool
    {
        $courses = array_keys(self::told_of($user_id));
        array_map(static fn (int $course_id): bool => delete_user_meta($user_id, self::TOLD . $course_id), $courses);
        return $courses !== [];
    }

    private function tell(int $user_id, int $course_id): void
    {
        if ($user_id <= 0 || $course_id <= 0 || $this->config->is_staff($user_id)) {
            return;
        }
        $now = $this->clock->now();
        // Refused when it is there already: of two requests one tells.
        if (! add_user_meta($user_id, self::TOLD . $course_id, (string) (int) $now, true)) {
            return;
        }
        $id = Identifier::make($now);
        $facts = [
            'id' => $id,
            'timestamp' => $now,
            'user_id' => $user_id,
            // Somebody who is let in by staff or by a payment is not the visitor of this request.
            'session_id' => get_current_user_id() === $user_id ? Visit::current()->session_id() : '',
            'source' => 'plugin',
            'metadata' => ['course_id' => (string) $course_id, 'course_name' => get_the_title($course_id)],
        ];
        $this->queue->add(
            new Message(Kind::Event, $id, EventPayload::of('course_enrollment', $facts)),
            new Message(Kind::Conversion, $id, JourneyPayload::conversion('enrollment', $facts)),
        );
    }
}
