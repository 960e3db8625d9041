<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

use PMP\Analytics\Payload\Clean;
use WP_Post;

/**
 * Which courses a product gives access to, and which course a page is about: under the ids that enrolments have.
 */
final class Courses
{
    /** Field in which LearnDash's add-on for WooCommerce stores the courses of a product. */
    private const OF_PRODUCT = '_related_course';

    /** Field in which Tutor LMS stores the product of a course. */
    private const PRODUCT_OF_COURSE = '_tutor_course_product_id';

    /** Post types of courses: of LearnDash, LifterLMS and Tutor LMS. */
    private const TYPES = ['sfwd-courses', 'course', 'courses'];

    private const MOST = 100;

    public function __construct(private readonly ProductType $product_type)
    {
    }

    /**
     * A product that is sold as a course without a course in an LMS is the course itself.
     *
     * @return list<string>
     */
    public function of_product(int $product_id): array
    {
        $linked = $product_id > 0 ? $this->linked($product_id) : [];
        $own = $linked === [] && $product_id > 0 && $this->product_type->of($product_id) === 'course' ? [$product_id] : $linked;
        /**
         * Ids of the courses that a product gives access to.
         *
         * @param list<int> $courses
         * @param int       $product_id
         */
        $courses = (array) apply_filters('pmp_analytics_product_courses', $own, $product_id);
        $ids = array_filter(array_map(static fn (mixed $course): string => Clean::text($course, 255), $courses));
        return array_slice(array_values(array_unique($ids)), 0, self::MOST);
    }

    /**
     * The course that a post is about: a course itself, a lesson of one, or a product that gives access to one course.
     */
    public function of_post(WP_Post $post): string
    {
        if (in_array($post->post_type, self::TYPES, true)) {
            return (string) $post->ID;
        }
        if ($post->post_type === 'product') {
            $courses = $this->of_product($post->ID);
            return count($courses) === 1 ? $courses[0] : '';
        }
        $course = function_exists('learndash_get_course_id') ? Clean::number(learndash_get_course_id($post->ID)) : 0;
        return $course > 0 ? (string) $course : '';
    }

    /**
     * @return list<int>
     */
    private function linked(int $product_id): array
    {
        $of_learndash = array_map(Clean::number(...), array_values((array) get_post_meta($product_id, self::OF_PRODUCT, true)));
        $of_tutor = get_posts([
            'post_type' => 'courses',
            'meta_key' => self::PRODUCT_OF_COURSE,
            'meta_value' => (string) $product_id,
            'fields' => 'ids',
            'posts_per_page' => self::MOST,
        ]);
        return array_values(array_filter([...$of_learndash, ...array_map(Clean::number(...), $of_tutor)]));
    }
}
