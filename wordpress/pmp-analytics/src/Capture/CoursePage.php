<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

use PMP\Analytics\Hook;
use PMP\Analytics\Registerable;
use WP_Post;

/**
 * Marks the page of a course, so that its page views name the course as enrolments and orders do. The mark is the same for every
 * visitor, and comes last: that of a theme takes precedence.
 */
final class CoursePage implements Registerable
{
    public function __construct(private readonly Courses $courses)
    {
    }

    public function register(): void
    {
        Hook::action('wp_footer', [$this, 'mark']);
    }

    public function mark(): void
    {
        $post = is_singular() ? get_queried_object() : null;
        $course = $post instanceof WP_Post ? $this->courses->of_post($post) : '';
        if ($course !== '') {
            printf('<div hidden data-pmp-page="course" data-pmp-course-id="%s"></div>' . "\n", esc_attr($course));
        }
    }
}
